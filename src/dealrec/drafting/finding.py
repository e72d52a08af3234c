"""Which files are looked at: those that were named, and what there is beside them or in a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dealrec.drafting.looking import Look, candidates, is_release, look
from dealrec.errors import ConfigError, DataError

MOST_CANDIDATES = 20


@dataclass(frozen=True)
class Found:
    """Files that were read. notes: on those that were not; named: the one that must be used, if one was named."""

    looks: tuple[Look, ...]
    notes: tuple[str, ...] = ()
    named: Look | None = None


def find(paths: Sequence[Path]) -> Found:
    """Read the two files that were named; or one and those beside it, or those of a folder, as far as possible.

    none: the working directory. Raises DataError for what was named and cannot be read, for a folder without any file
    that can, or with too many; ConfigError for what the system does not let us look at.
    """
    with reachable("Check the path, and that you may read it."):
        if len(paths) == 2:
            return Found(tuple(look(path) for path in paths))
        named = paths[0] if paths else Path()
        if named.is_dir() and not is_release(named):
            return _in_folder(named)
        first = look(named)
        beside = _beside(named, first)
        if len(beside) > MOST_CANDIDATES:
            note = f"{len(beside):,} files beside {named.name} may be data, which is too many to look at: name two"
            return Found((first,), (note,), first)
        others, faults = _readable(beside)
        return Found((first, *others), _left_out(faults), first)


@contextmanager
def reachable(remedy: str) -> Iterator[None]:
    """Raise ConfigError for what the system refuses, such as a folder that is closed to the user."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"Cannot look at {error.filename} ({error.strerror})", remedy) from None


def _in_folder(folder: Path) -> Found:
    found = candidates(folder)
    if not found:
        raise DataError(
            f"There is no file with interactions or items in {folder.resolve()}",
            "Name them: dealrec init INTERACTIONS ITEMS (Parquet, CSV, TSV, JSON Lines, .inter and .item, or a folder"
            " of the DEALRec release).",
        )
    if len(found) > MOST_CANDIDATES:
        raise DataError(
            f"{folder.resolve()} has {len(found):,} files that may be data, which is too many to look at",
            "Name two: dealrec init INTERACTIONS ITEMS",
        )
    looks, faults = _readable(found)
    if not looks:
        *_, last = faults.values()
        raise DataError("; ".join(fault.cause for fault in faults.values()), last.remedy)
    return Found(tuple(looks), _left_out(faults))


def _beside(named: Path, first: Look) -> list[Path]:
    folder = named if named.is_dir() else named.parent
    recbole = first.format == "recbole"
    beside = [path for path in candidates(folder) if not path.samefile(named)]
    beside = [path for path in beside if path.name.endswith((".inter", ".item")) == recbole]
    if recbole:
        beside = [path for path in beside if path.suffix != named.suffix and path.stem == named.stem] or beside
    return beside


def _readable(paths: Sequence[Path]) -> tuple[list[Look], dict[Path, DataError]]:
    looks, faults = [], {}
    for path in paths:
        try:
            looks.append(look(path))
        except DataError as error:
            faults[path] = error
    return looks, faults


def _left_out(faults: dict[Path, DataError]) -> tuple[str, ...]:
    return tuple(f"{path.name} is left out: {str(fault).removeprefix(f'{path}: ')}" for path, fault in faults.items())
