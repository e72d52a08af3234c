"""What there is to report on: the stages of a run directory that belong together and to the settings."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from dealrec.columns import TIMESTAMP, USER
from dealrec.config import Config
from dealrec.engine.manifest import Manifest, read_manifest
from dealrec.errors import RunDirectoryError
from dealrec.stages import pipeline as graph

STAGES = ("data", "surrogate", "influence", "warmstart", "effort", "select", "export", "finetune", "evaluate")
OTHER_VERSION = "was made by another version of dealrec"
OTHER_SETTINGS = "is of other settings or of an earlier selection"


@dataclass(frozen=True)
class Run:
    """A run directory. manifests: of the stages to report on; outdated: the others that stand there, and why."""

    folder: Path
    config: Config
    manifests: Mapping[str, Manifest]
    outdated: Mapping[str, str]

    def has(self, *stages: str) -> bool:
        """Whether all of these stages are to be reported on."""
        return all(stage in self.manifests for stage in stages)

    def facts(self, stage: str) -> dict[str, Any]:
        """Facts of a stage's manifest; empty without the stage."""
        return self.manifests[stage].facts if stage in self.manifests else {}

    def table(self, name: str) -> pl.DataFrame:
        """A table such as `data/items.parquet`."""
        return pl.read_parquet(self.folder / name)

    def json(self, name: str) -> Any:
        """Content of a JSON file such as `evaluate/comparison.json`."""
        return json.loads((self.folder / name).read_text(encoding="utf-8"))


def times_are(run: Run) -> Literal["moments", "rows", "places"]:
    """What the timestamps are: moments, row numbers of the file, or places in each user's own sequence.

    Places begin at 0 or 1 for every user; moments of many users do not. Only moments can be compared between users.
    """
    if run.config.data.format == "dealrec":
        return "places"
    if run.config.data.columns.timestamp is None:
        return "rows"
    train = run.table("data/interactions-train.parquet")
    firsts = train.group_by(USER).agg(pl.col(TIMESTAMP).min())[TIMESTAMP]
    return "places" if len(firsts) > 1 and ((firsts == 0) | (firsts == 1)).all() else "moments"


def open_run(run_dir: Path, config: Config) -> Run:
    """Find the stages that are complete, made by this version, under `config`, and from one another.

    A run that went on to a later stage once and was then repeated up to an earlier one with other settings still
    holds the later stage's results; they are of another selection and must not stand beside this one. What another
    version of a stage wrote may lack what is read here.
    Raises RunDirectoryError where there is not even the data stage.
    """
    settings = config.model_dump(mode="json")
    versions = {stage.name: stage.version for stage in graph.STAGES}
    current: dict[str, Manifest] = {}
    outdated: dict[str, str] = {}
    for stage in STAGES:
        manifest = read_manifest(run_dir / stage)
        if manifest is None:
            continue
        if manifest.version != versions[stage]:
            outdated[stage] = OTHER_VERSION
        elif _same_settings(manifest, settings) and _same_inputs(manifest, current):
            current[stage] = manifest
        else:
            outdated[stage] = OTHER_SETTINGS
    if "data" not in current:
        why = f"; the one there {outdated['data']}" if "data" in outdated else ""
        raise RunDirectoryError(
            f"{run_dir} holds no complete data stage of these settings, so there is nothing to report{why}",
            "Run it first: dealrec run CONFIG --run-dir DIR",
        )
    return Run(run_dir, config, current, outdated)


def _same_settings(manifest: Manifest, settings: dict[str, Any]) -> bool:
    def at(key: str) -> Any:
        return functools.reduce(lambda value, part: value[part], key.split("."), settings)

    try:
        return all(at(key) == value for key, value in manifest.config.items())
    except (KeyError, TypeError):
        return False


def _same_inputs(manifest: Manifest, earlier: Mapping[str, Manifest]) -> bool:
    for name, digest in manifest.inputs.items():
        source, _, rest = name.partition("/")
        if source == "outside":
            continue
        if source not in earlier or earlier[source].outputs.get(rest) != digest:
            return False
    return True
