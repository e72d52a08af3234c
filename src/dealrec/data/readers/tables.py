"""From a file to columns: what is in the file, with every fault of the file named."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import polars as pl
from polars.selectors import by_name  # a column may be called *, which would be all of them

from dealrec.data.readers.blocks import Text
from dealrec.data.readers.delimited import read_delimited
from dealrec.data.readers.faults import reading, require_content, unreadable
from dealrec.data.readers.jsonl import Keep, read_jsonl
from dealrec.data.readers.kinds import header_fault, unknown_kind
from dealrec.data.readers.parts import sibling_note, table_files
from dealrec.errors import DataError

STRETCHES = 10
_PROBE = 1000  # rows by which the size of a table in memory is estimated


@dataclass(frozen=True)
class Column:
    """One column of a file; `text` when the format knows no types, so that 7 may be a number or a name.

    separator: what separates several values in one text, where the format says that they are several. place: in words,
    which row of the user's one of `values` is; None: they are all of the rows, in their order.
    """

    path: Path
    name: str
    values: pl.Series
    text: bool
    separator: str | None = None
    place: Callable[[int], str] | None = None


@dataclass(frozen=True)
class Table:
    """The columns that were read of a file, under the names the file gives them.

    separators: of those that the format calls sequences. names: of all columns that there are, read or not.
    share: of the rows, what was read. warnings: what was peculiar and read all the same.
    """

    path: Path
    frame: pl.DataFrame
    text: bool
    separators: Mapping[str, str] = field(default_factory=dict)
    names: Sequence[str] = ()
    share: float = 1.0
    warnings: tuple[str, ...] = ()

    def column(self, name: str, *, setting: str, hint: str = "") -> Column:
        """Return the column called `name`, which `setting` asked for; DataError if there is none."""
        if f"{name}_duplicated_0" in self.names:
            raise DataError(f"{self.path}: two columns are called '{name}'", "Rename one of them.")
        if name in self.frame.columns:
            return Column(self.path, name, self.frame[name], self.text, self.separators.get(name))
        names = self.names or self.frame.columns
        if self.text and (fault := header_fault(self.path, names, self.frame)):
            raise fault
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        remedy = f"Set {setting} to the column's name" + (f"; did you mean '{near[0]}'?" if near else ".")
        raise DataError(f"{self.path}: no column '{name}'; there are: {', '.join(names)}", remedy + hint)


def everything(schema: pl.Schema) -> list[str]:
    """All columns."""
    return schema.names()


def only(names: Collection[str | None]) -> Keep:
    """Those of the columns that are among the names."""
    return lambda schema: [name for name in schema if name in names]


def read_table(path: Path, keep: Keep = everything, *, limit: int | None = None) -> Table:
    """Read columns of a CSV, TSV, Parquet or JSON Lines file, as its name ends, or of a folder with its parts.

    CSV and TSV are read as text throughout: guessing the types would turn an id "007" into 7.
    keep: chooses the columns; others are not held in memory. limit: bytes; of a larger
    table half as many are read, of text those at the beginning, of Parquet stretches from the first row to the last.
    Raises DataError if the file is missing, empty, damaged, or of another kind.
    """
    if not path.is_dir():
        _ending(path, accepted=READERS)
    files = table_files(path, READERS)
    part_limit = None if limit is None else limit // len(files)
    tables = [_read(file, READERS[_ending(file, accepted=READERS)], keep, part_limit) for file in files]
    table = tables[0] if path == files[0] else _concatenated(path, tables)
    if table.frame.height == 0:
        raise DataError(f"{path}: the file is empty (no rows)", "Write it again.")
    note = sibling_note(path)
    return replace(table, warnings=(*table.warnings, note)) if note else table


def read_recbole(path: Path, keep: Keep = everything, *, ending: str, limit: int | None = None) -> Table:
    """Read a RecBole atomic file: tab-separated, no quoting, a header of `name:type`, everything as text.

    Columns of sequences (`name:token_seq`) stay texts, with a space as their separator.
    Raises DataError as `read_table` does, and if two columns have the same name.
    """
    _ending(path, accepted=(ending,))

    def keep_typed(schema: pl.Schema) -> list[str]:
        names = [name.rsplit(":", 1)[0] for name in schema]
        untyped = keep(pl.Schema(dict.fromkeys(names, pl.String())))
        return [name for name in schema if name.rsplit(":", 1)[0] in untyped]

    table = _read(path, partial(_delimited, separator="\t", quoted=False), keep_typed, limit)
    frame, names, sequences = without_types(path, table.frame, table.names)
    if frame.height == 0:
        raise DataError(f"{path}: the file is empty (no rows)", "Write it again.")
    return replace(table, frame=frame, names=names, separators=sequences)


def without_types(
    path: Path, frame: pl.DataFrame, header: Sequence[str]
) -> tuple[pl.DataFrame, list[str], dict[str, str]]:
    """Columns of a RecBole file under their names alone, all names, and the separators of sequences.

    header: the names as they stand in it, with their types. Raises DataError if two columns then have the same name.
    """
    names = [name.rsplit(":", 1)[0] for name in header]
    if len(set(names)) < len(names):
        raise DataError(f"{path}: two columns have the same name: {', '.join(names)}", "Rename one of them.")
    sequences = {name: " " for name, kind in zip(names, header, strict=True) if kind.endswith("_seq")}
    return frame.rename({name: name.rsplit(":", 1)[0] for name in frame.columns}), names, sequences


def refuse(column: Column, mask: pl.Series, *, fault: str, remedy: str) -> None:
    """Raise DataError with the count, the first value and its row, if any row of the mask is true.

    Rows are counted from 1, the header not included.
    """
    rows = mask.fill_null(False).arg_true()
    if len(rows) == 0:
        return
    first = int(rows[0])
    place = f"data row {first + 1:,}" if column.place is None else column.place(first)
    raise DataError(
        f"{column.path}: column '{column.name}' {fault} in {len(rows):,} of {len(mask):,} rows;"
        f" the first is {shown(column.values, first)} in {place}",
        remedy,
    )


def shown(values: pl.Series, row: int) -> str:
    """A value as an error names it, cut; where it is none, such as a date of the year 300,000, its type."""
    try:
        value = values[row]
        value = repr(value.to_list() if isinstance(value, pl.Series) else value)
    except (pl.exceptions.PanicException, ValueError, OverflowError):
        return f"a {values.dtype} out of range"
    return value if len(value) <= 80 else value[:77] + "..."


def _read(path: Path, reader: Reader, keep: Keep, limit: int | None) -> Table:
    require_content(path)
    with reading(path):  # a damaged Parquet file can make the reader panic, which is no Exception
        try:
            return reader(path, keep, limit)
        except pl.exceptions.NoDataError as error:
            raise DataError(f"{path}: the file is empty", "Write it again.") from error


def _text(path: Path, limit: int | None) -> Text:
    size = path.stat().st_size * (4 if path.name.lower().endswith(".gz") else 1)
    return Text(path, None if limit is None or size <= limit else limit // 2)


def _delimited(path: Path, keep: Keep, limit: int | None, *, separator: str, quoted: bool = True) -> Table:
    text = _text(path, limit)
    frame, names, warnings = read_delimited(text, separator, keep, quoted=quoted)
    return Table(path, frame, text=True, names=names, share=text.share, warnings=warnings)


def _jsonl(path: Path, keep: Keep, limit: int | None) -> Table:
    text = _text(path, limit)
    frame, names = read_jsonl(text, keep)
    return Table(path, frame, text=False, names=names, share=text.share)


def _parquet(path: Path, keep: Keep, limit: int | None) -> Table:
    schema = pl.read_parquet(path, n_rows=0, glob=False).schema
    columns = keep(schema) or schema.names()[:1]
    lazy = pl.scan_parquet(path, glob=False)
    if limit is not None:
        rows = int(lazy.select(pl.len()).collect().item())
        sample = _stretches(lazy.select(by_name(*columns)), rows, _PROBE)
        size = sample.estimated_size() / max(1, sample.height)
        if size * rows > limit:
            sample = _stretches(lazy.select(by_name(*columns)), rows, max(STRETCHES, int(limit / 2 / size)))
            return Table(path, sample, text=False, names=schema.names(), share=sample.height / rows)
    return Table(path, lazy.select(by_name(*columns)).collect(), text=False, names=schema.names())


def _stretches(lazy: pl.LazyFrame, rows: int, total: int) -> pl.DataFrame:
    """About that many rows in all, in stretches from the first to the last."""
    if rows <= total:
        return lazy.collect()
    length = total // STRETCHES
    starts = [round(i * (rows - length) / (STRETCHES - 1)) for i in range(STRETCHES)]
    return pl.concat([lazy.slice(start, length).collect() for start in starts])


Reader = Callable[[Path, Keep, int | None], Table]
READERS: dict[str, Reader] = {
    ".csv": partial(_delimited, separator=","),
    ".csv.gz": partial(_delimited, separator=","),
    ".tsv": partial(_delimited, separator="\t"),
    ".tsv.gz": partial(_delimited, separator="\t"),
    ".parquet": _parquet,
    **dict.fromkeys((".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json", ".json.gz"), _jsonl),
}


def _concatenated(path: Path, tables: Sequence[Table]) -> Table:
    """The parts of a table as one; DataError if their columns differ."""
    first = tables[0]
    for table in tables:
        if set(table.names) != set(first.names):
            if first.text and (fault := header_fault(first.path, first.names, first.frame)):
                raise fault
            raise DataError(
                f"{path}: a folder whose files have different columns: {first.path.name} has"
                f" {', '.join(first.names)}, and {table.path.name} has {', '.join(table.names)}",
                "Name the file itself in data.interactions or data.items.",
            )
    columns = first.frame.columns
    try:
        frame = pl.concat([table.frame.select(by_name(*columns)) for table in tables], how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        raise unreadable(path, str(error).splitlines()[0], "Give each column one type in all of the files.") from error
    weights = [table.path.stat().st_size for table in tables]
    share = sum(table.share * weight for table, weight in zip(tables, weights, strict=True)) / sum(weights)
    note = f"{path.name} is a folder of {len(tables):,} files, which are read as one table"
    warnings = (note, *(warning for table in tables for warning in table.warnings))
    return Table(path, frame, first.text, names=first.names, share=share, warnings=warnings)


def _ending(path: Path, *, accepted: Collection[str]) -> str:
    ending = next((ending for ending in accepted if path.name.lower().endswith(ending)), None)
    if ending is None:
        raise unknown_kind(path, accepted)
    return ending
