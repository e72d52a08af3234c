"""What stands in a run directory: how a table is written and read, and the results of the stages together."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import polars as pl

from dealrec.engine.manifest import Manifest, checked_manifest, damage_line, refuse_other_format
from dealrec.engine.runner import State, recorded_config, states
from dealrec.engine.settings import Settings, deviations, recorded
from dealrec.engine.stage import MACHINE, OUTSIDE, SettingsT, Stage
from dealrec.errors import DealrecError, RunDirectoryError

OTHER_VERSION = "was made by another version of dealrec"
ON_DAMAGED = "rests on a stage that is damaged"
OTHER_SETTINGS = "is of other settings or of an earlier selection"


def write_table(path: Path, table: pl.DataFrame, *, key: str | Sequence[str]) -> None:
    """Write Parquet sorted by its key, appearing at once under its name."""
    staging = path.with_name(path.name + ".tmp")
    table.sort(key).write_parquet(staging)
    staging.rename(path)


def write_text(path: Path, text: str) -> None:
    """Write a text, appearing at once under its name: what stood there stays until then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(path.name + ".tmp")
    try:
        staging.write_text(text, encoding="utf-8")
        staging.rename(path)
    except OSError:
        staging.unlink(missing_ok=True)
        raise


def read_table(path: Path) -> pl.DataFrame:
    """The table that `write_table` wrote, sorted as it was. The path means itself, whatever characters are in it."""
    return pl.read_parquet(path, glob=False)


def merge_shards(paths: Iterable[Path], *, key: str, expected: pl.Series) -> pl.DataFrame:
    """One table from shards, sorted by its key, of which each of the expected values must occur exactly once."""
    merged = pl.concat([read_table(path) for path in paths]).sort(key)
    if not merged[key].equals(expected.sort(), check_names=False):
        raise DealrecError(
            f"The shards hold {len(merged)} rows for {len(expected)} of {key}, or others",
            "Delete the stage's .part folder in the run directory and run again.",
        )
    return merged


@dataclass(frozen=True)
class Run(Generic[SettingsT]):
    """A run directory.

    stages: their names, in order. manifests: of those that go together; outdated: the others that stand there, and why.
    """

    folder: Path
    config: SettingsT
    stages: tuple[str, ...]
    manifests: Mapping[str, Manifest]
    outdated: Mapping[str, str]

    def has(self, *stages: str) -> bool:
        """Whether all of these stages are there."""
        return all(stage in self.manifests for stage in stages)

    def facts(self, stage: str) -> dict[str, Any]:
        """Facts of a stage's manifest; empty without the stage."""
        return self.manifests[stage].facts if stage in self.manifests else {}

    def table(self, name: str) -> pl.DataFrame:
        """A table such as `data/items.parquet`."""
        return read_table(self.folder / name)

    def json(self, name: str) -> Any:
        """Content of a JSON file such as `compare/comparison.json`."""
        return json.loads((self.folder / name).read_text(encoding="utf-8"))


def open_run(run_dir: Path, stages: Sequence[Stage[SettingsT]], config: SettingsT) -> Run[SettingsT]:
    """Find the stages that are complete, made by this version, under `config`, and from one another.

    A run that went on to a later stage once and was then repeated up to an earlier one with other settings still
    holds the later stage's results; they are of another selection and must not stand beside this one. What another
    version of a stage wrote may lack what is read here. Files outside the run directory are not read again.
    What is damaged is left out too, and named. Raises RunDirectoryError where there is not even the first stage.
    """
    current: dict[str, Manifest] = {}
    outdated: dict[str, str] = {}
    damaged: set[str] = set()  # and what rests on it
    for stage in stages:
        refuse_other_format(run_dir / stage.name)
        manifest, damage = checked_manifest(run_dir / stage.name)
        if damage:
            damaged.add(stage.name)
            outdated[stage.name] = f"is not as it was written: {damage_line(run_dir / stage.name, damage)}"
        elif manifest is None:
            continue
        elif manifest.version != stage.version:
            outdated[stage.name] = OTHER_VERSION
        elif _same_settings(manifest, config) and _same_inputs(manifest, current):
            current[stage.name] = manifest
        elif damaged & {name.partition("/")[0] for name in manifest.inputs}:
            damaged.add(stage.name)
            outdated[stage.name] = ON_DAMAGED
        else:
            outdated[stage.name] = OTHER_SETTINGS
    first = stages[0].name
    if first not in current:
        reason = f"; the one there {outdated[first]}" if first in outdated else ""
        raise RunDirectoryError(
            f"{run_dir} holds no complete {first} stage of these settings, so there is nothing to read{reason}",
            "Run it first: dealrec run CONFIG --run-dir DIR",
        )
    return Run(run_dir, config, tuple(stage.name for stage in stages), current, outdated)


def complete_run(run_dir: Path, stages: Sequence[Stage[SettingsT]], kind: type[SettingsT]) -> Run[SettingsT]:
    """A run with its recorded settings. Raises RunDirectoryError unless all these stages are up to date."""
    config = recorded_config(run_dir, kind)
    manifests: dict[str, Manifest] = {}
    for stage, state, manifest in states(config, run_dir, stages, anywhere=True):
        if state is State.DAMAGED:
            folder = run_dir / stage.name
            raise RunDirectoryError(
                damage_line(folder, checked_manifest(folder)[1]),
                f"Make it again with: dealrec run CONFIG --run-dir {run_dir}",
            )
        if state is not State.COMPLETE or manifest is None:
            last = stages[-1].name
            raise RunDirectoryError(
                f"The run in {run_dir} is not complete up to {last}: {stage.name} is {state}",
                f"Complete it with: dealrec run CONFIG --run-dir {run_dir} --until {last}",
            )
        manifests[stage.name] = manifest
    return Run(run_dir, config, tuple(manifests), manifests, {})


def _same_settings(manifest: Manifest, config: Settings) -> bool:
    kind = type(config)
    try:
        return deviations(manifest.config, kind) == deviations(recorded(config, manifest.config), kind)
    except (KeyError, TypeError):  # a setting that this version has no more
        return False


def _same_inputs(manifest: Manifest, earlier: Mapping[str, Manifest]) -> bool:
    for name, digest in manifest.inputs.items():
        source, _, rest = name.partition("/")
        if source in (OUTSIDE, MACHINE):
            continue
        if source not in earlier or earlier[source].outputs.get(rest) != digest:
            return False
    return True
