"""Which files are looked at: those that were named, and what there is beside them or in a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dealrec.data.readers.kinds import unknown_kind
from dealrec.data.readers.parts import is_table
from dealrec.data.readers.tables import READERS
from dealrec.drafting.preview import Preview, candidates, is_release, preview
from dealrec.errors import ConfigError, DataError

MOST_CANDIDATES = 20


@dataclass(frozen=True)
class Files:
    """Files that were read. notes: on those that were not; named: the one that must be used, if one was named."""

    previews: tuple[Preview, ...]
    notes: tuple[str, ...] = ()
    named: Preview | None = None


def files(paths: Sequence[Path]) -> Files:
    """Read the two files that were named; or one and those beside it, or those of a folder, as far as possible.

    none: the working directory. Raises DataError for what was named and cannot be read, for a folder without any file
    that can, or with too many; ConfigError for what the system does not let us look at.
    """
    with reachable("Check the path, and that you may read it."):
        if len(paths) == 2:
            return Files(tuple(preview(path) for path in paths))
        named = paths[0] if paths else Path()
        if named.is_dir() and not is_release(named) and not is_table(named, READERS):
            return _in_folder(named)
        first = preview(named)
        beside = _beside(named, first)
        if len(beside) > MOST_CANDIDATES:
            note = f"{len(beside):,} files beside {named.name} may be data, which is too many to look at: name two"
            return Files((first,), (note,), first)
        others, faults = _readable(beside)
        return Files((first, *others), _left_out(faults), first)


@contextmanager
def reachable(remedy: str) -> Iterator[None]:
    """Raise ConfigError for what the system refuses, such as a folder that is closed to the user."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"Cannot look at {error.filename} ({error.strerror})", remedy) from None


def _in_folder(folder: Path) -> Files:
    paths = candidates(folder)
    if not paths:
        raise _nothing_in(folder)
    if len(paths) > MOST_CANDIDATES:
        raise DataError(
            f"{folder.resolve()} has {len(paths):,} files that may be data, which is too many to look at",
            "Name two: dealrec init INTERACTIONS ITEMS",
        )
    previews, faults = _readable(paths)
    if not previews:
        *_, last = faults.values()
        raise DataError("; ".join(fault.cause for fault in faults.values()), last.remedy)
    return Files(tuple(previews), _left_out(faults))


def _nothing_in(folder: Path) -> DataError:
    cause = f"There is no file with interactions or items in {folder.resolve()}"
    remedy = (
        "Name them: dealrec init INTERACTIONS ITEMS (Parquet, CSV, TSV, JSON Lines, .inter and .item, or a folder"
        " of the DEALRec release)."
    )
    others = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    faults = [unknown_kind(path, READERS) for path in others[:3]]
    if not faults:
        return DataError(cause, remedy)
    names = ", ".join(path.name for path in others[:10])
    known = [fault for fault in faults if ": unknown kind of file:" in fault.cause] or faults
    said = "; ".join(fault.cause.removeprefix(f"{folder}/") for fault in known)
    return DataError(f"{cause} of a kind that is read; there are: {names}. {said}", known[0].remedy)


def _beside(named: Path, first: Preview) -> list[Path]:
    folder = named if first.format == "dealrec" else named.parent
    recbole = first.format == "recbole"
    beside = [path for path in candidates(folder) if not path.samefile(named)]
    beside = [path for path in beside if path.name.endswith((".inter", ".item")) == recbole]
    if recbole:
        beside = [path for path in beside if path.suffix != named.suffix and path.stem == named.stem] or beside
    return beside


def _readable(paths: Sequence[Path]) -> tuple[list[Preview], dict[Path, DataError]]:
    previews, faults = [], {}
    for path in paths:
        try:
            previews.append(preview(path))
        except DataError as error:
            faults[path] = error
    return previews, faults


def _left_out(faults: dict[Path, DataError]) -> tuple[str, ...]:
    return tuple(f"{path.name} is left out: {str(fault).removeprefix(f'{path}: ')}" for path, fault in faults.items())
