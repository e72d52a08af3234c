"""What a user's file holds: enough of its rows to tell what its columns can be."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import polars as pl

from dealrec.data import values
from dealrec.data.readers.faults import reading
from dealrec.data.readers.kinds import header_fault
from dealrec.data.readers.release import read_release, release_files
from dealrec.data.readers.tables import Column, Table, read_recbole, read_table, shown
from dealrec.errors import DataError

RECBOLE = (".inter", ".item")
MAX_BYTES = 64 * 2**20  # of a table that is read whole; of a larger one, half of that

_Values = TypeVar("_Values")
_PROBE = 1000  # values that are tried before the whole column is
_WORDY = r"\p{L}{2,}.*\s|^\D*\p{L}\D*$"  # several words, or letters and no digit: few codes are so


@dataclass(frozen=True, eq=False)
class Profile:
    """A column and what it can be: `column` without its missing values, of which there are `missing`.

    ids: whether these can be ids. unique: each value once, ids as text. many: 0 for one value, 1 for ten thousand and
    more. times: as `data.values` reads them, if it does; moments: the first and the last, if all are between 1980 and
    2100 in one of the units since 1970. wordy: share of the first values that may be names.
    """

    name: str
    column: Column
    missing: int
    rows: int
    ids: bool
    unique: pl.Series
    distinct: int
    many: float
    times: pl.Series | None
    moments: tuple[datetime, datetime] | None
    wordy: float
    example: str


@dataclass(frozen=True, eq=False)  # each is only itself, even where a file is named twice
class Preview:
    """What was read: all rows, or a sample; the table is without columns of lists, records and bytes.

    format: table, recbole or dealrec. columns: those with values, by name. rows: of the file; an estimate where it was
    not read whole. seen: in words, how many were read.
    """

    path: Path
    name: str
    format: str
    table: Table
    columns: dict[str, Profile]
    rows: int
    whole: bool
    seen: str


def preview(path: Path) -> Preview:
    """Read a file or a folder with the parts of a table, or of a large one a sample; or the DEALRec release.

    Raises DataError for what the readers refuse, and for a text file without a header or with another separator.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder", "Name a file with interactions or items.")
    ending = path.suffix.lower()
    if is_release(path):
        kind, table = "dealrec", Table(path, read_release(path), text=False)
    elif ending in RECBOLE:
        kind, table = "recbole", read_recbole(path, ending=ending, limit=MAX_BYTES)
    else:
        kind, table = "table", read_table(path, _flat, limit=MAX_BYTES)
        if table.text and (fault := header_fault(path, table.names, table.frame)):
            raise fault
    height, whole = table.frame.height, table.share == 1.0
    rows = round(height / table.share)
    seen = f"all {height:,} rows" if whole else f"{height:,} of about {rows:,} rows"
    with reading(path):
        columns = {column.name: column for cells in table.frame if (column := profile(table, cells))}
    return Preview(path, path.name, kind, table, columns, rows, whole, seen)


def is_release(folder: Path) -> bool:
    """Whether the folder has the text layout of the DEALRec release."""
    files = release_files(folder)
    return files["train"].is_file() and files["test"].is_file()


def read_as(column: Column, reader: Callable[[Column], _Values]) -> _Values | None:
    """What the reader makes of the values; None where it refuses them."""
    try:
        reader(replace(column, values=column.values.head(_PROBE)))
        return reader(column)
    except DataError:
        return None


def share(column: Column, pattern: str) -> float:
    """Share of the first values that the pattern is found in; 0 for what is no text."""
    texts = column.values.head(_PROBE)
    return float(texts.str.contains(pattern).mean()) if texts.dtype == pl.String else 0.0  # type: ignore[arg-type]


def _flat(schema: pl.Schema) -> list[str]:
    return [name for name, kind in schema.items() if not kind.is_nested() and kind not in (pl.Binary, pl.Object)]


def profile(table: Table, cells: pl.Series) -> Profile | None:
    """What a column of the table can be; None if there are no values."""
    cells = cells.cast(pl.String) if isinstance(cells.dtype, pl.Categorical | pl.Enum) else cells
    absent = values.missing(cells)
    if absent.all():
        return None
    column = Column(table.path, cells.name, cells.filter(~absent), table.text, table.separators.get(cells.name))
    times = read_as(column, values.timestamps)
    ids = None if cells.dtype == pl.Boolean else read_as(column, values.ids)
    unique = (ids.values.cast(pl.String) if ids else column.values).unique(maintain_order=True)
    return Profile(
        name=cells.name,
        column=column,
        missing=int(absent.sum()),
        rows=len(column.values),
        ids=ids is not None,
        unique=unique,
        distinct=len(unique),
        many=min(1.0, math.log10(len(unique)) / 4),
        times=times,
        moments=None if times is None else _moments(times),
        wordy=share(column, _WORDY),
        example=shown(column.values, 0).strip("'\"")[:40],
    )


def _moments(times: pl.Series) -> tuple[datetime, datetime] | None:
    """The first and the last, if all are between 1980 and 2100 in one of the units since 1970."""
    low, high = float(times.min()), float(times.max())  # type: ignore[arg-type]
    for per in values.PER_SECOND.values():
        if values.EARLIEST * per <= low <= high <= values.LATEST * per:
            return datetime.fromtimestamp(low / per, UTC), datetime.fromtimestamp(high / per, UTC)
    return None
