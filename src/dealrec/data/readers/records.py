"""Files of training rows, one row at a time: what stands in its fields, or as it stands in the file."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray
from polars.selectors import by_name

from dealrec.data.readers.blocks import Text
from dealrec.data.readers.faults import READ_ERRORS, not_utf8, read_error, require_content, unreadable
from dealrec.data.readers.jsonl import json_object
from dealrec.data.readers.kinds import unknown_kind
from dealrec.data.readers.parts import table_files
from dealrec.errors import ConfigError, DataError

Fields = dict[str, Any]
Keep = Callable[[Collection[str]], Collection[str]]  # the fields that are read, of all that there are

LINES, DOCUMENT, TABLE = (".jsonl", ".ndjson"), (".json",), {".csv": ",", ".tsv": "\t"}
PARQUET = ".parquet"
ENDINGS = (*(f"{ending}{packed}" for ending in (*LINES, *DOCUMENT, *TABLE) for packed in ("", ".gz")), PARQUET)
_BLOCK = 8192  # rows of a Parquet file that are in memory at a time
_SPACE = re.compile(r"[ \t\r\n]*")


def record_files(locations: Sequence[Path], *, setting: str) -> list[Path]:
    """The files of rows, of a folder its parts by name. Raises DataError unless all are there, and of one kind."""
    try:
        files = [file for location in locations for file in table_files(location, ENDINGS)]
    except DataError as error:
        remedy = re.sub(r"data\.interactions (or|and|,) ?data\.items", setting, error.remedy)
        raise DataError(error.cause, remedy) from None
    for file in files:
        if ending(file) != ending(files[0]):
            raise DataError(
                f"{setting}: {files[0].name} and {file.name} are of two kinds", "Give all rows in files of one kind."
            )
        require_content(file)
    return files


def ending(path: Path) -> str:
    """What its name ends in, of `ENDINGS`. Raises DataError for another."""
    found = next((each for each in ENDINGS if path.name.lower().endswith(each)), None)
    if found is None:
        raise unknown_kind(path, ENDINGS)
    return found


def records(path: Path, keep: Keep = lambda names: names) -> Iterator[Fields]:
    """The fields of each row; of a Parquet file those that are kept. Text that is no JSON is DataError with its row.

    A row of JSON has the fields that it names; of a CSV all, as text.
    """
    if ending(path) == PARQUET:
        yield from _parquet_records(path, keep)
        return
    raw = raw_records(path)
    if _separator(path) is None:
        text = Text(path)
        for number, record in enumerate(raw, start=1):
            yield json_object(text, record, number, b"")
        return
    names = _cells(path, next(raw), 0)
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path}: two columns are called '{name}'", "Rename one of them.")
    for number, record in enumerate(raw, start=1):
        cells = _cells(path, record, number)
        if len(cells) != len(names):
            raise unreadable(
                path, f"row {number:,} has {len(cells):,} cells, and the header {len(names):,}", "Mend that row."
            )
        yield dict(zip(names, cells, strict=True))


def raw_records(path: Path) -> Iterator[bytes]:
    """Each row of a text file as it stands there; of a CSV its header first, of a JSON document without the commas.

    Blank lines are no rows.
    """
    with _faults(path), _opened(path) as file:
        head = file.read(4)
        if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise not_utf8(path, "it begins as UTF-16 does", encoding="utf-16")
        file.seek(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
        if _separator(path) is not None:
            yield from _quoted(path, file)
        elif _is_document(file):
            yield from _elements(path, file.read())
        else:
            yield from (line for line in file if line.strip())


def copy_records(files: Sequence[Path], kept: NDArray[np.bool_], folder: Path) -> Path:
    """Write the rows that are kept as they stand, in their order, to one file `train` with the ending of the files.

    kept: of each row of all files, in their order. A Parquet file keeps its schema, with what it says beside the types,
    and its compression. Raises DataError where there are not as many rows.
    """
    out = folder / f"train{ending(files[0])}"
    copy = _copy_parquet if out.suffix == PARQUET else _copy_text
    count = copy(files, kept, out)
    if count != len(kept):
        raise DataError(
            f"{files[0]}: there are {count:,} rows, and there were {len(kept):,} when they were selected from",
            "Run again: the file has changed.",
        )
    return out


def _copy_text(files: Sequence[Path], kept: NDArray[np.bool_], out: Path) -> int:
    table, document = _separator(files[0]) is not None, False
    count, written = 0, 0
    with _created(out) as target:
        for number, path in enumerate(files):
            raw = raw_records(path)
            if table:
                header = next(raw)
                if not number:
                    target.write(_with_end(header))
            elif not number:
                with _opened(path) as file:
                    document = _is_document(file)
                target.write(b"[\n" if document else b"")
            for record in raw:
                if count < len(kept) and kept[count]:
                    if document:
                        target.write((b",\n" if written else b"") + record)
                    else:
                        target.write(_with_end(record))
                    written += 1
                count += 1
        target.write(b"\n]\n" if document else b"")
    return count


def _copy_parquet(files: Sequence[Path], kept: NDArray[np.bool_], out: Path) -> int:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigError("Rows of Parquet are written with pyarrow", "Install it: pip install pyarrow") from error
    first = pq.ParquetFile(files[0])
    codec = first.metadata.row_group(0).column(0).compression if first.metadata.num_row_groups else "SNAPPY"
    options = {"compression": "NONE" if codec == "UNCOMPRESSED" else codec}
    count = 0
    with pq.ParquetWriter(out, first.schema_arrow, **options) as writer:
        for path in files:
            for batch in pq.ParquetFile(path).iter_batches(batch_size=_BLOCK):
                mask = kept[count : count + len(batch)]
                if mask.any():
                    writer.write_batch(batch.take(np.flatnonzero(mask)).cast(first.schema_arrow))
                count += len(batch)
    return count


def count_rows(path: Path, *, most: int) -> int:
    """How many rows there are in a file, as far as `most`."""
    if ending(path) == PARQUET:
        with _faults(path):
            return min(most, _height(path))
    header = _separator(path) is not None
    return max(0, sum(1 for _ in islice(raw_records(path), most + header)) - header)


def _height(path: Path) -> int:
    return int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())


def _parquet_records(path: Path, keep: Keep) -> Iterator[Fields]:
    with _faults(path):
        rows = _height(path)
        columns = keep(pl.read_parquet(path, n_rows=0, glob=False).schema)
        for start in range(0, rows, _BLOCK):
            block = pl.scan_parquet(path, glob=False).slice(start, _BLOCK).select(by_name(*columns)).collect()
            yield from block.iter_rows(named=True)


def names_of(path: Path) -> list[str] | None:
    """The names of a file's fields, where one place of it says so; None of JSON, where each row does."""
    if ending(path) == PARQUET:
        with _faults(path):
            return list(pl.read_parquet(path, n_rows=0, glob=False).schema)
    return _cells(path, next(raw_records(path)), 0) if _separator(path) is not None else None


def _separator(path: Path) -> str | None:
    """What separates the cells of a table; None of another kind of file."""
    return TABLE.get(ending(path).removesuffix(".gz"))


def _cells(path: Path, record: bytes, number: int) -> list[str]:
    """The cells of a row of text; number 0: the header."""
    place = f"row {number:,}" if number else "the header"
    csv.field_size_limit(2**31 - 1)  # of the module: a prompt may be longer than it would take
    try:
        text = io.StringIO(record.decode(), newline="")
        return next(csv.reader(text, delimiter=str(_separator(path)), strict=True))
    except UnicodeDecodeError as error:
        raise not_utf8(path, place) from error
    except csv.Error as error:
        raise unreadable(path, f"{place} is no {ending(path)[1:].upper()} ({error})", "Mend that row.") from error


def _quoted(path: Path, lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines, joined where a line end is within quotes."""
    record, open_, number = b"", False, 0
    for line in lines:
        record += line
        open_ ^= line.count(b'"') % 2 == 1
        if not open_:
            if record.strip():
                yield record
                number += 1
            record = b""
    if record:
        raise unreadable(path, f"row {number:,} has a quotation mark that is never closed", "Mend that row.")


def _elements(path: Path, content: bytes) -> Iterator[bytes]:
    """The elements of a JSON document that is a list, as they are written."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise not_utf8(path, f"line {number:,}") from error
    place, number, decoder = _next(text, _next(text, 0) + 1), 0, json.JSONDecoder()
    while text[place : place + 1] not in ("]", ""):
        try:
            _, end = decoder.raw_decode(text, place)
        except ValueError as error:
            raise unreadable(path, f"row {number + 1:,} is no JSON ({error})", "Mend it.") from error
        yield text[place:end].encode()
        number, place = number + 1, _next(text, end)
        if text[place : place + 1] == ",":
            place = _next(text, place + 1)
    if text[place : place + 1] != "]":
        raise unreadable(path, f"its list ends within or after row {number:,}, without a ]", "Write it again.")


def _next(text: str, place: int) -> int:
    """Where the next character is that is no white space."""
    space = _SPACE.match(text, place)
    return space.end() if space else place


def _is_document(file: IO[bytes]) -> bool:
    """Whether the text from here on is a list; the file is left where it was."""
    start = file.tell()
    head = file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()
    file.seek(start)
    return head.startswith(b"[")


def _with_end(record: bytes) -> bytes:
    return record if record.endswith(b"\n") else record + b"\n"


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as raw:
        yield cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if path.name.lower().endswith(".gz") else raw


@contextmanager
def _created(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, packed where its name says so, the same bytes whenever it is written."""
    with path.open("wb") as raw:
        if path.name.lower().endswith(".gz"):
            with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed:
                yield cast("IO[bytes]", packed)
        else:
            yield raw


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error, *READ_ERRORS) as error:
        raise read_error(path, error) from error
