"""What a user's file holds: its columns, and enough of its rows to tell what they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from dealrec.data.readers.kinds import header_fault
from dealrec.data.readers.parts import files_of
from dealrec.data.readers.release import read_release, release_files
from dealrec.data.readers.tables import STRETCHES, Table, read_recbole, read_table
from dealrec.drafting.profiles import Profile, profiles
from dealrec.errors import DataError

RECBOLE = (".inter", ".item")
MAX_BYTES = 64 * 2**20  # of a table that is read whole; of a larger one, half of that


@dataclass(frozen=True, eq=False)  # each is only itself, even where a file is named twice
class Preview:
    """What was read: all rows, or a sample; the table is without columns of lists, records and bytes.

    format: table, recbole or dealrec.
    """

    path: Path
    format: str
    table: Table

    @property
    def name(self) -> str:
        """Of the file."""
        return self.path.name

    @cached_property
    def columns(self) -> dict[str, Profile]:
        """Those with values, by name."""
        return profiles(self.table)

    @property
    def nested(self) -> set[str]:
        """Names of the columns of lists, records and bytes."""
        return set(self.table.names) - set(self.table.frame.columns)

    @property
    def whole(self) -> bool:
        """Whether all rows were read."""
        return self.table.share == 1.0

    @property
    def rows(self) -> int:
        """Of the file; an estimate of a large text."""
        return round(self.table.frame.height / self.table.share)

    def seen(self) -> str:
        """In words, which rows were read."""
        height = self.table.frame.height
        if self.whole:
            return f"all {height:,} rows"
        if any(part.suffix == ".parquet" for part in files_of(self.path)):
            return f"{height:,} of {self.rows:,} rows, in {STRETCHES} stretches from first to last"
        return f"the first {height:,} of about {self.rows:,} rows"

    def listed(self) -> str:
        """The columns with values, such as `sku (1,200 distinct, e.g. 'A-17')`, for messages."""
        columns = self.columns.values()
        return "; ".join(f"{column.name} ({column.distinct:,} distinct, e.g. {column.example!r})" for column in columns)


def preview(path: Path) -> Preview:
    """Read a file or a folder with the parts of a table, or of a large one a sample; or the DEALRec release.

    Raises DataError for what the readers refuse, and for a text file without a header or with another separator.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder", "Name a file with interactions or items.")
    if is_release(path):
        frame = read_release(path)
        return Preview(path, "dealrec", Table(path, frame, text=False, names=frame.columns))
    ending = path.suffix.lower()
    if ending in RECBOLE:
        return Preview(path, "recbole", read_recbole(path, ending=ending, limit=MAX_BYTES))
    table = read_table(path, _flat, limit=MAX_BYTES)
    if table.text and (fault := header_fault(path, table.names, table.frame)):
        raise fault
    return Preview(path, "table", table)


def is_release(folder: Path) -> bool:
    """Whether the folder has the text layout of the DEALRec release."""
    files = release_files(folder)
    return files["train"].is_file() and files["test"].is_file()


def _flat(schema: pl.Schema) -> list[str]:
    return [name for name, kind in schema.items() if not kind.is_nested() and kind not in (pl.Binary, pl.Object)]
