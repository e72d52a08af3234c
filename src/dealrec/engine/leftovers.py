"""What an interrupted run has left of a stage, which the next run need not make again."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dealrec.engine.hashes import file_hash
from dealrec.engine.manifest import Manifest, intact_units, stage_origin
from dealrec.engine.settings import Settings
from dealrec.engine.stage import HASHES, SHARDS, UNITS, Context, Silent, Stage
from dealrec.errors import DataError


def finished_shards(
    stage: Stage, config: Settings, run_dir: Path, *, complete: Mapping[str, Manifest]
) -> frozenset[str]:
    """Names of the shards of a run that was making the same. complete: manifests of the stages before it."""
    digest = stage_origin(stage, config, complete).digest()
    shards = (run_dir / f"{stage.name}.part" / SHARDS / digest[:16]).glob("*")
    return frozenset(path.name for path in shards if path.suffix not in {".tmp", HASHES})


def finished_units(
    stage: Stage, config: Settings, run_dir: Path, *, complete: Mapping[str, Manifest]
) -> frozenset[str]:
    """Names of the units that are there, of a stage that does nothing but make units: it is run, and makes none."""
    origin, (earlier, _) = stage_origin(stage, config, complete), intact_units(run_dir / stage.name)
    with TemporaryDirectory(prefix="dealrec-") as out:  # whatever the stage writes, nothing gets into the run
        query = _UnitQuery(stage.name, config, Silent(), run_dir, Path(out), stage.inputs, origin, earlier)
        stage.run(query)
    return frozenset(query.units)


class _UnitQuery(Context):
    """Has a stage say which units it wants, and fills none; `units` are those that are there."""

    def unit(self, name: str, fill: Callable[[Path], None], **made_of: Any) -> Path:  # noqa: ARG002
        """Look for the unit."""
        key, place = self.unit_place(name, **made_of)
        folder = self.run_dir / f"{self.name}.part" / place.relative_to(self.out)
        if self.earlier.get(name) == key or folder.exists():
            self.units[name] = key
        return self.out / name


def drop_damaged(part: Path) -> Iterator[Path]:
    """Delete what is not as an interrupted run has finished it, as after a loss of power; yields what that was.

    Folders that were finished as a whole are known by the SHA-256 of their files; of what is kept one by one, such as
    checkpoints, files that are cut.
    """
    for kept in [*part.glob(f"{SHARDS}/*/*"), *part.glob(f"{UNITS}/*")]:
        hashes = kept.with_name(f"{kept.name}{HASHES}")
        if kept.suffix == ".tmp":
            continue
        if kept.is_dir() and not hashes.exists():
            damaged = [each for each in kept.iterdir() if not all(map(_is_whole, _files(each)))]
        else:
            whole = _as_finished(kept, hashes) if kept.is_dir() else _is_whole(kept)
            damaged = [] if whole else [kept]
        for each in damaged:
            yield each
            shutil.rmtree(each) if each.is_dir() else each.unlink()


def _files(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]


def _as_finished(folder: Path, hashes: Path) -> bool:
    try:
        return all(file_hash(folder / name) == digest for name, digest in json.loads(hashes.read_bytes()).items())
    except (DataError, ValueError):
        return False


def _is_whole(path: Path) -> bool:
    """By its ends or what it says of its size; other files cannot be told."""
    size = path.stat().st_size
    with path.open("rb") as file:
        begin = file.read(8)
        if path.suffix == ".parquet":
            return begin[:4] == b"PAR1" == os.pread(file.fileno(), 4, max(4, size - 4))
        if path.suffix == ".safetensors":
            try:
                header = json.loads(file.read(int.from_bytes(begin, "little")))
                ends = [each["data_offsets"][1] for name, each in header.items() if name != "__metadata__"]
                return size == file.tell() + max(ends, default=0)
            except (ValueError, TypeError, KeyError, AttributeError, MemoryError, OverflowError):
                return False
    if path.suffix == ".pt":
        return zipfile.is_zipfile(path)
    if path.suffix == ".json":
        try:
            json.loads(path.read_bytes())
        except ValueError:
            return False
    return True
