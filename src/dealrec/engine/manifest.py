"""Manifests and fingerprints: what a stage's folder holds, and what it was made from."""

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from dealrec.config import RECOMMENDER_SECTIONS, Config
from dealrec.engine.stage import Stage
from dealrec.errors import DataError

FORMAT = 1  # of the run directory
MANIFEST = "manifest.json"
FINGERPRINT = "fingerprint"
LIBRARIES = ("dealrec", "torch", "transformers", "peft", "polars", "numpy")


class Manifest(BaseModel):
    """What is known of a complete stage. Only `outputs` and `fingerprint` decide whether it is up to date."""

    model_config = ConfigDict(extra="ignore")

    stage: str
    version: int
    format: int
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]
    outputs: dict[str, str]
    sizes: dict[str, int]
    seed: int
    libraries: dict[str, str]
    device: str
    threads: int
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    facts: dict[str, Any] = {}
    warnings: list[str] = []


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a complete stage, or None: no folder, none of ours, or a file of it is gone or resized."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        intact = all((folder / name).stat().st_size == size for name, size in manifest.sizes.items())
    except (OSError, ValueError):
        return None
    return manifest if intact and manifest.format == FORMAT else None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write it at once: the file is there complete, or not at all."""
    staging = folder / f"{MANIFEST}.tmp"
    staging.write_text(manifest.model_dump_json(indent=2) + "\n")
    staging.rename(folder / MANIFEST)


def stage_settings(stage: Stage, config: Config) -> dict[str, Any]:
    """The parts of the config that can change the stage's outcome, by dotted name; not those of other recommenders."""
    dumped = config.model_dump(mode="json")
    own = RECOMMENDER_SECTIONS[config.recommender]
    others = {section for sections in RECOMMENDER_SECTIONS.values() for section in sections} - set(own)

    def at(key: str) -> Any:
        return functools.reduce(lambda value, part: value[part], key.split("."), dumped)

    return {key: at(key) for key in stage.settings if key.partition(".")[0] not in others}


def stage_inputs(stage: Stage, config: Config, complete: Mapping[str, Manifest]) -> dict[str, str]:
    """SHA-256 of everything the stage reads. complete: manifests of the stages before it."""
    hashes: dict[str, str] = {}
    for name in stage.inputs:
        source, _, rest = name.partition("/")
        outputs = complete[source].outputs
        hashes |= {f"{source}/{key}": value for key, value in outputs.items() if not rest or key == rest}
    if stage.reads_manifests:
        hashes |= {f"{name}/{MANIFEST}": _digest(manifest.model_dump_json()) for name, manifest in complete.items()}
    for place, thing in enumerate(stage.outside(config)):
        # By place, not by path: a file that was moved is the same file.
        hashes[f"outside/{place}"] = file_hash(thing) if isinstance(thing, Path) else thing
    return hashes


def fingerprint(stage: Stage, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Digest of the stage's version, its settings and its inputs."""
    parts = [FORMAT, stage.name, stage.version, settings, inputs]
    return _digest(json.dumps(parts, sort_keys=True))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file. Raises DataError if it cannot be read."""
    try:
        stat = path.stat()
        return _file_hash(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})", "Check the path and its permissions.") from None


@functools.lru_cache
def _file_hash(path: Path, _size: int, _changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def output_files(folder: Path) -> list[Path]:
    """The files of a stage's folder that are its outcome, sorted."""
    inner = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in inner if path.relative_to(folder).as_posix() not in (MANIFEST, FINGERPRINT))


def library_versions() -> dict[str, str]:
    """Versions of the libraries on which results can depend."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def thread_count() -> int:
    """Threads of torch, without importing it where no stage has."""
    import sys

    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch else os.cpu_count() or 1
