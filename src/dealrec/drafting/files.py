"""Which files are looked at: those that were named, and what there is beside them or in a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dealrec.data.readers.kinds import unknown_kind
from dealrec.data.readers.parts import is_table
from dealrec.data.readers.tables import READERS
from dealrec.drafting.preview import RECBOLE, Preview, is_release, preview
from dealrec.errors import ConfigError, DataError

MOST_CANDIDATES = 20
NAME_BOTH = "Name both files: dealrec init INTERACTIONS ITEMS"


@dataclass(frozen=True)
class Files:
    """Files that were read. named: those that must be used; notes: on those that were not read."""

    previews: tuple[Preview, ...]
    named: frozenset[Preview]
    notes: tuple[str, ...] = ()


def files(paths: Sequence[Path]) -> Files:
    """Read the two files that were named; or one and those beside it, or those of a folder, as far as possible.

    none: the working directory. Raises DataError for what was named and cannot be read, for a folder without any file
    that can, or with too many; ConfigError for what the system does not let us look at.
    """
    with reachable("Check the path, and that you may read it."):
        if len(paths) == 2:
            both = tuple(preview(path) for path in paths)
            return Files(both, frozenset(both))
        place = paths[0] if paths else Path()
        in_folder = place.is_dir() and not is_release(place) and not is_table(place, READERS)
        named = () if in_folder else (preview(place),)
        others = _beside(named[0]) if named else _candidates(place)
        if not (named or others):
            raise _nothing_in(place)
        if len(others) > MOST_CANDIDATES:
            where = f"beside {place.name}" if named else f"in {place.resolve()}"
            note = f"{len(others):,} files {where} may be data, which is too many to look at: name two"
            if named:
                return Files(named, frozenset(named), (note,))
            raise DataError(note, NAME_BOTH)
        return _with_readable(named, others)


@contextmanager
def reachable(remedy: str) -> Iterator[None]:
    """Raise ConfigError for what the system refuses, such as a folder that is closed to the user."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"Cannot look at {error.filename} ({error.strerror})", remedy) from None


def _with_readable(named: tuple[Preview, ...], others: Sequence[Path]) -> Files:
    previews, faults = list(named), {}
    for path in others:
        try:
            previews.append(preview(path))
        except DataError as error:
            faults[path] = error
    if not previews:
        *_, last = faults.values()
        raise DataError("; ".join(fault.cause for fault in faults.values()), last.remedy)
    notes = (f"{path.name} is left out: {str(fault).removeprefix(f'{path}: ')}" for path, fault in faults.items())
    return Files(tuple(previews), frozenset(named), tuple(notes))


def _beside(first: Preview) -> list[Path]:
    recbole = first.format == "recbole"
    paths = _candidates(first.path if first.format == "dealrec" else first.path.parent)
    others = [path for path in paths if path.name.endswith(RECBOLE) == recbole and not path.samefile(first.path)]
    return [path for path in others if recbole and path.stem == first.path.stem] or others


def _candidates(folder: Path) -> list[Path]:
    """What the folder holds that can be read, sorted by name."""
    paths = (path for path in folder.iterdir() if not path.name.startswith("."))
    endings = (*READERS, *RECBOLE)
    return sorted(p for p in paths if (p.is_file() and p.name.lower().endswith(endings)) or is_table(p, READERS))


def _nothing_in(folder: Path) -> DataError:
    others = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    cause = f"There is no file with interactions or items in {folder.resolve()}"
    if not others:
        kinds = "Parquet, CSV, TSV, JSON Lines, .inter and .item, or a folder of the DEALRec release"
        return DataError(cause, f"{NAME_BOTH} ({kinds}).")
    names = ", ".join(path.name for path in others[:10])
    telling = max((unknown_kind(path, READERS) for path in others[:3]), key=lambda fault: len(fault.remedy))
    return DataError(f"{cause} of a kind that is read; there are: {names}. {telling.cause}", telling.remedy)
