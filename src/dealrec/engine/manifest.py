"""Manifests: what a stage's folder holds, what it was made from, and what it cost."""

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from dealrec.engine.hashes import file_hash
from dealrec.engine.settings import Settings, deviations, recorded
from dealrec.engine.stage import MACHINE, OUTSIDE, SHARDS, UNITS, Origin, Stage, within
from dealrec.errors import DataError, RunDirectoryError

FORMAT = 2  # of the run directory
MANIFEST = "manifest.json"
FINGERPRINT = "fingerprint"
LIBRARIES = ("dealrec", "torch", "transformers", "peft", "polars", "numpy")


class Manifest(BaseModel):
    """What is known of a complete stage. Only `outputs` and `fingerprint` decide whether it is up to date.

    config: the stage's settings in full. outside: names of the inputs `outside/0` and so on. units: the fingerprint of
    each folder of the outcome that has one of its own; unit_costs: its wall and CPU seconds. wall_seconds, cpu_seconds:
    of the whole outcome, units that were there before included.
    """

    model_config = ConfigDict(extra="ignore")

    stage: str
    version: int
    format: int
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]
    outside: list[str] = []
    outputs: dict[str, str]
    sizes: dict[str, int]
    units: dict[str, str] = {}
    unit_costs: dict[str, tuple[float, float]] = {}
    seed: int
    libraries: dict[str, str]
    device: str
    threads: int
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    facts: dict[str, Any] = {}
    warnings: list[str] = []

    def outside_hashes(self) -> list[tuple[str, str]]:
        """Name and SHA-256 of all that the stage has read from outside the run directory."""
        return [(name, self.inputs[f"{OUTSIDE}/{place}"]) for place, name in enumerate(self.outside)]


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a complete stage, or None: no folder, none of ours, or a file of it is damaged."""
    return checked_manifest(folder)[0]


def checked_manifest(folder: Path) -> tuple[Manifest | None, dict[str, str]]:
    """`read_manifest`, and the files of the stage that are not as they were written, each with what is wrong."""
    manifest = stored_manifest(folder)
    while manifest is not None:
        damage = _damage(folder, manifest)
        now = stored_manifest(folder) if damage else manifest
        if now == manifest:
            return (None if damage else manifest), damage
        manifest = now  # a run has put another outcome there in the meantime
    is_cut = (folder / MANIFEST).exists() and _format(folder) in (None, FORMAT)  # another one is refused elsewhere
    return None, {MANIFEST: "it cannot be read"} if is_cut else {}


def damage_line(folder: Path, damage: Mapping[str, str]) -> str:
    """What is wrong with a stage, in a line."""
    (name, reason), *more = damage.items()
    return f"{folder / name} is damaged: {reason}" + (f" (and {len(more)} more files of {folder.name})" if more else "")


def refuse_other_format(folder: Path) -> None:
    """Raise RunDirectoryError for the folder of a stage that a version of another format has made."""
    version = _format(folder)
    if version is not None and version != FORMAT:  # absent or damaged: it is made anew
        raise RunDirectoryError(
            f"{folder.parent} was made by another version of dealrec (format {version}; this one has {FORMAT})",
            "Choose a new --run-dir, or delete it.",
        )


def intact_units(folder: Path) -> tuple[dict[str, str], dict[str, tuple[float, float]]]:
    """The units of a stage's folder whose files are as they were written: the fingerprint and the cost of each.

    The stage may be damaged.
    """
    manifest = stored_manifest(folder)
    if manifest is None:
        return {}, {}
    damage = _damage(folder, manifest)
    intact = [unit for unit in manifest.units if not any(within(name, unit) for name in damage)]
    return {unit: manifest.units[unit] for unit in intact}, manifest.unit_costs


def stored_manifest(folder: Path) -> Manifest | None:
    """What the manifest says, whatever has become of the files; None: there is none, or it cannot be read."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    return manifest if manifest.format == FORMAT else None


def _format(folder: Path) -> Any:
    """The format that a manifest says it is of; None: there is none, or it does not say."""
    try:
        return json.loads((folder / MANIFEST).read_bytes())["format"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _damage(folder: Path, manifest: Manifest) -> dict[str, str]:
    damage: dict[str, str] = {}
    for name, size in manifest.sizes.items():
        try:
            found = (folder / name).stat().st_size
            if found != size:
                damage[name] = f"it has {found:,} bytes, not {size:,}"
            elif all(file_hash(folder / name, kept=kept) != manifest.outputs.get(name) for kept in (True, False)):
                damage[name] = "its SHA-256 is not that of what was written"
        except FileNotFoundError:
            damage[name] = "it is gone"
        except (OSError, DataError):
            damage[name] = "it cannot be read"
    return damage


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write it at once: the file is there complete, or not at all."""
    staging = folder / f"{MANIFEST}.tmp"
    staging.write_text(manifest.model_dump_json(indent=2) + "\n")
    staging.rename(folder / MANIFEST)


def stage_origin(stage: Stage, config: Settings, complete: Mapping[str, Manifest]) -> Origin:
    """What the stage's outcome would be made from. complete: manifests of the stages before it."""
    config = stage.view(config)
    hashes: dict[str, str] = {}
    for name in stage.inputs:
        source, _, rest = name.partition("/")
        outputs = complete[source].outputs
        hashes |= {f"{source}/{key}": value for key, value in outputs.items() if not rest or within(key, rest)}
    if stage.reads_manifests:
        hashes |= {
            f"{name}/{MANIFEST}": hashlib.sha256(manifest.model_dump_json().encode()).hexdigest()
            for name, manifest in complete.items()
        }
    for place, dependency in enumerate(stage.outside(config)):
        # By place, not by path: a file that was moved is the same file.
        hashes[f"{OUTSIDE}/{place}"] = file_hash(dependency) if isinstance(dependency, Path) else dependency
    hashes |= {f"{MACHINE}/{place}": name for place, name in enumerate(stage.machine(config))}
    settings = deviations(recorded(config, stage.settings), type(config))
    return Origin(stage.name, stage.version, settings, hashes)


def output_files(folder: Path) -> list[Path]:
    """The files of a stage's folder that are its outcome, sorted."""
    internal = {MANIFEST, FINGERPRINT, SHARDS, UNITS}
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in files if path.relative_to(folder).parts[0] not in internal)


def library_versions() -> dict[str, str]:
    """Versions of the libraries on which results can depend."""
    return {name: _installed(name) for name in LIBRARIES}


@functools.cache  # its metadata would be parsed again for each stage
def _installed(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def thread_count() -> int:
    """Threads of torch, without importing it where no stage has."""
    import sys

    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch else os.cpu_count() or 1
