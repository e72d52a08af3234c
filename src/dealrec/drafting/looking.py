"""A look at a user's file: its columns, and enough of its rows to tell what they hold."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from dealrec.data.release import read_release, release_files
from dealrec.data.tables import READERS, Table, read_recbole, read_table, require_file, unreadable, without_types
from dealrec.errors import DataError

TABLES = tuple(READERS)
LINES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
RECBOLE = (".inter", ".item")
MAX_ROWS = 1_000_000  # of a Parquet file that is read whole; of a larger one, as many rows as half of that
MAX_BYTES = 64 * 2**20  # of a text file that is read whole; of a larger one, the first half of that
STRETCHES = 10


@dataclass(frozen=True)
class Look:
    """What was read. rows: of the file, an estimate of a large text; seen: in words, which rows were read.

    whole: whether all were; nested: columns of lists, records and bytes, which the table is without.
    """

    path: Path
    format: str
    table: Table
    rows: int
    seen: str
    whole: bool
    nested: tuple[str, ...]


def look(path: Path) -> Look:
    """Read a file, or of a large one a sample; a folder is one of the DEALRec release.

    Lists, records and bytes are left out. Raises DataError for what the readers refuse, and for a text file without
    a header or with another separator.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder", "Name a file with interactions or items.")
    if path.is_dir():
        if not is_release(path):
            raise DataError(
                f"{path}: a folder, without the files of the DEALRec release (sequential_train.txt and so on)",
                "Name the files in it, or the folder alone.",
            )
        frame = read_release(path)
        return _whole(path, "dealrec", Table(path, frame, text=False))
    name = path.name.lower()
    if name.endswith(RECBOLE):
        return _text(path, "recbole", lambda: read_recbole(path, ending=name[name.rindex(".") :]))
    if name.endswith(".parquet"):
        return _parquet(path)
    found = _text(path, "table", lambda: read_table(path))
    if found.table.text:
        _refuse_without_header(found)
    return found


def candidates(folder: Path) -> list[Path]:
    """The files in the folder that `look` takes, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name.lower().endswith(TABLES + RECBOLE))


def is_release(folder: Path) -> bool:
    """Whether the folder has the text layout of the DEALRec release."""
    files = release_files(folder)
    return files["train"].is_file() and files["test"].is_file()


def _whole(path: Path, form: str, table: Table) -> Look:
    rows = table.frame.height
    return _flattened(path, form, table, rows, f"all {rows:,} rows", whole=True)


def _flattened(path: Path, form: str, table: Table, rows: int, seen: str, *, whole: bool) -> Look:
    nested = tuple(name for name, dtype in table.frame.schema.items() if not _flat(dtype))
    flat = Table(path, table.frame.drop(nested), table.text, table.separators)
    return Look(path, form, flat, rows, seen, whole, nested)


def _flat(dtype: pl.DataType) -> bool:
    return not dtype.is_nested() and dtype not in (pl.Binary, pl.Object)


def _parquet(path: Path) -> Look:
    require_file(path)
    try:
        lazy = pl.scan_parquet(path, glob=False)
        schema = lazy.collect_schema()
        flat = [name for name, dtype in schema.items() if _flat(dtype)]
        rows = int(lazy.select(pl.len()).collect().item())
        if rows <= MAX_ROWS:
            return _whole(path, "table", read_table(path))
        length = MAX_ROWS // 2 // STRETCHES
        starts = [round(i * (rows - length) / (STRETCHES - 1)) for i in range(STRETCHES)]
        frame = pl.concat([lazy.select(flat).slice(start, length).collect() for start in starts])
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        unreadable(path, error)
    seen = f"{frame.height:,} of {rows:,} rows, in {STRETCHES} stretches from first to last"
    nested = tuple(name for name in schema if name not in flat)
    return Look(path, "table", Table(path, frame, text=False), rows, seen, whole=False, nested=nested)


def _text(path: Path, form: str, read: Callable[[], Table]) -> Look:
    require_file(path)
    packed = path.name.lower().endswith(".gz")
    size = path.stat().st_size
    if size <= (MAX_BYTES // 4 if packed else MAX_BYTES):
        return _whole(path, form, read())
    try:
        with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as unpacked:
            head = (unpacked if packed else raw).read(MAX_BYTES // 2)
            share = raw.tell() / size
        frame = _head(path, head[: head.rindex(b"\n") + 1])
    except (pl.exceptions.PolarsError, OSError, EOFError, ValueError) as error:
        unreadable(path, error)
    frame, separators = without_types(path, frame) if form == "recbole" else (frame, {})
    rows = round(frame.height / min(1.0, share))
    text = not path.name.lower().endswith(LINES)
    seen = f"the first {frame.height:,} of about {rows:,} rows"
    return _flattened(path, form, Table(path, frame, text, separators), rows, seen, whole=False)


def _head(path: Path, head: bytes) -> pl.DataFrame:
    """The rows in the beginning of a file; the last may be cut within quotes, and is left out."""
    name = path.name.lower()
    if name.endswith(LINES):
        return pl.read_ndjson(io.BytesIO(head), infer_schema_length=None)
    tabs = name.endswith((*RECBOLE, ".tsv", ".tsv.gz"))
    return pl.read_csv(
        io.BytesIO(head),
        separator="\t" if tabs else ",",
        quote_char=None if name.endswith(RECBOLE) else '"',
        infer_schema=False,
        truncate_ragged_lines=True,
    )[:-1]


def _refuse_without_header(found: Look) -> None:
    frame = found.table.frame
    names = frame.columns
    mark = next((mark for mark in ("::", ";", "|", "\t") if mark in names[0]), None) if len(names) == 1 else None
    if mark is not None:
        raise DataError(
            f"{found.path}: its columns are separated by {mark!r}: {names[0][:60]!r}",
            "Separate them by commas, or by tabs in a file whose name ends in .tsv.",
        )
    numbers = [name for name in names if _is_number(re.sub(r"_duplicated_\d+$", "", name))]
    values = frame[names[0]].head(1000)
    first = names[0] in numbers and values.cast(pl.Float64, strict=False).null_count() == values.null_count()
    if first or 2 * len(numbers) >= len(names) > 1:
        raise DataError(
            f"{found.path}: the first line holds values ({', '.join(names)[:60]}), not names of columns",
            "Write a line with the names of the columns on top.",
        )


def _is_number(name: str) -> bool:
    return re.fullmatch(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", name.strip()) is not None
