"""Files of training rows, one row at a time: what stands in its fields, or as it stands in the file."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import polars as pl
from polars.selectors import by_name

from dealrec.data.readers.blocks import LONGEST_LINE, Text, require_sane, too_long
from dealrec.data.readers.faults import line_ends_fault, not_utf8, reading, require_content, require_utf8, unreadable
from dealrec.data.readers.jsonl import document_fault, json_object
from dealrec.data.readers.kinds import separator_fault, unknown_kind
from dealrec.data.readers.parts import table_files
from dealrec.errors import DataError

Fields = dict[str, Any]
Keep = Callable[[Collection[str]], Collection[str]]  # the fields that are read, of all that there are

LINES, DOCUMENT, TABLE = (".jsonl", ".ndjson"), (".json",), {".csv": ",", ".tsv": "\t"}
PARQUET = ".parquet"
ENDINGS = (*(f"{ending}{packed}" for ending in (*LINES, *DOCUMENT, *TABLE) for packed in ("", ".gz")), PARQUET)
LARGEST_DOCUMENT = 2**31  # bytes of a JSON document, unpacked
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
    kind = next((each for each in ENDINGS if path.name.lower().endswith(each)), None)
    if kind is None:
        raise unknown_kind(path, ENDINGS)
    return kind


def records(path: Path, keep: Keep = lambda names: names) -> Iterator[Fields]:
    """The fields of each row; of a Parquet file those that are kept. Text that is no JSON is DataError with its row.

    A row of JSON has the fields that it names; of a CSV all, as text.
    """
    if ending(path) == PARQUET:
        yield from _parquet_records(path, keep)
        return
    raw = raw_records(path)
    if separator_of(path) is None:
        text = Text(path)
        for number, (line, record) in enumerate(raw):
            row = json_object(text, record, line, b"" if number else record)
            if not number and _wraps_a_table(path, row):
                raise document_fault(text)
            yield row
        return
    names = _header(path, raw)
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path}: two columns are called '{name}'", "Rename one of them.")
    for number, (line, record) in enumerate(raw, start=1):
        place = _place(number, line)
        cells = _cells(path, record, place)
        if len(cells) != len(names):
            raise unreadable(path, f"{place} has {len(cells):,} cells, and the header {len(names):,}", "Mend that row.")
        yield dict(zip(names, cells, strict=True))


def place_of(path: Path, number: int) -> str:
    """In words which row it is, counted from 1, and of text on which line it begins where that is another number."""
    if ending(path) == PARQUET:
        return f"row {number:,}"
    header = separator_of(path) is not None
    line, _ = next(islice(raw_records(path), number - 1 + header, None))
    return _place(number, line)


def _place(number: int, line: int) -> str:
    return f"row {number:,}" if number == line else f"row {number:,} (line {line:,})"


def raw_records(path: Path) -> Iterator[tuple[int, bytes]]:
    """Each row of a text file as it stands there, and the line that it begins on, the first being 1.

    Of a CSV its header comes first; rows of a JSON document come without the commas. Blank lines are no rows.
    """
    with reading(path), opened(path) as file:
        head = file.read(64)
        require_utf8(path, head)
        file.seek(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
        if separator_of(path) is not None:
            yield from _quoted(path, _lines(path, file))
        elif is_document(file):
            yield from _elements(path, _whole(path, file))
        else:
            yield from ((number, line) for number, line in enumerate(_lines(path, file), start=1) if line.strip())


def count_rows(path: Path, *, most: int) -> int:
    """How many rows there are in a file, as far as `most`."""
    if ending(path) == PARQUET:
        with reading(path):
            return min(most, _height(path))
    header = separator_of(path) is not None
    return max(0, sum(1 for _ in islice(raw_records(path), most + header)) - header)


def _height(path: Path) -> int:
    return int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())


def _parquet_records(path: Path, keep: Keep) -> Iterator[Fields]:
    with reading(path):
        rows = _height(path)
        columns = keep(pl.read_parquet(path, n_rows=0, glob=False).schema)
        for start in range(0, rows, _BLOCK):
            block = pl.scan_parquet(path, glob=False).slice(start, _BLOCK).select(by_name(*columns)).collect()
            yield from block.iter_rows(named=True)


def names_of(path: Path) -> list[str] | None:
    """The names of a file's fields, where one place of it says so; None of JSON, where each row does."""
    if ending(path) == PARQUET:
        with reading(path):
            return list(pl.read_parquet(path, n_rows=0, glob=False).schema)
    return _header(path, raw_records(path)) if separator_of(path) is not None else None


def separator_of(path: Path) -> str | None:
    """What separates the cells of a table; None of another kind of file."""
    return TABLE.get(ending(path).removesuffix(".gz"))


def _wraps_a_table(path: Path, row: Fields) -> bool:
    """Whether the one object in a JSON document is no row, but holds a list of them: `{"data": [{...}, ...]}`."""
    tables = [value for value in row.values() if isinstance(value, list) and value and isinstance(value[0], Mapping)]
    single = ending(path).startswith(DOCUMENT) and count_rows(path, most=2) == 1
    return single and len(row) == len(tables) and not any("role" in table[0] or "from" in table[0] for table in tables)


def _header(path: Path, raw: Iterator[tuple[int, bytes]]) -> list[str]:
    """The names of the columns of a table, the first of its records."""
    _, record = next(raw, (1, b""))
    if not record:
        raise DataError(f"{path}: there is no row in it", "Write it again.")
    if re.search(rb"\r(?!\n)", record):
        raise line_ends_fault(path)
    names = _cells(path, record, "the header")
    if len(names) == 1 and (fault := separator_fault(path, record.decode().strip(), str(separator_of(path)))):
        raise fault
    return names


def _cells(path: Path, record: bytes, place: str) -> list[str]:
    """The cells of a row of text. place: in words, which row it is."""
    csv.field_size_limit(2**31 - 1)  # of the module: a prompt may be longer than it would take
    try:
        text = io.StringIO(record.decode(), newline="")
        return next(csv.reader(text, delimiter=str(separator_of(path)), strict=True))
    except UnicodeDecodeError as error:
        raise not_utf8(path, place) from error
    except csv.Error as error:
        raise unreadable(path, f"{place} is no {ending(path)[1:].upper()} ({error})", "Mend that row.") from error


def _lines(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    """The lines of an opened file, none of them endless."""
    packed = path.name.lower().endswith(".gz")
    while line := file.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            raise too_long(path)
        if packed:
            require_sane(path, file.tell())
        yield line


def _whole(path: Path, file: IO[bytes]) -> bytes:
    """All that is left of an opened file."""
    content = file.read(LARGEST_DOCUMENT + 1)
    if len(content) > LARGEST_DOCUMENT:
        raise unreadable(
            path,
            f"one JSON document of more than {LARGEST_DOCUMENT // 2**30} GiB, which has to be read at once",
            "Write one object a line, as JSON Lines.",
        )
    return content


def _quoted(path: Path, lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines, joined where a line end is within quotes."""
    pieces, size, open_, first = list[bytes](), 0, False, 1
    for number, line in enumerate(lines, start=1):
        first = first if open_ else number
        pieces.append(line)
        size += len(line)
        open_ ^= line.count(b'"') % 2 == 1
        if size > LONGEST_LINE:
            raise too_long(path)
        if not open_:
            if (record := b"".join(pieces)).strip():
                yield first, record
            pieces, size = [], 0
    if pieces:
        fault = f"the row on line {first:,} has a quotation mark that is never closed"
        raise unreadable(path, fault, "Mend that row.")


def _elements(path: Path, content: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements of a JSON document that is a list, as they are written, each with its line."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise not_utf8(path, f"line {number:,}") from error
    decoder, mark, number, line, counted = json.JSONDecoder(), "", 0, 1, 0
    place = _next(text, _next(text, 0) + 1)
    if text[place : place + 1] == "]":
        mark, place = "]", _next(text, place + 1)
    while mark != "]":
        number, line, counted = number + 1, line + text.count("\n", counted, place), place
        try:
            _, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise unreadable(path, f"{_place(number, line)} is no JSON ({error})", "Mend it.") from error
        yield line, text[place:end].encode()
        mark = text[(end := _next(text, end)) : end + 1]
        if mark not in (",", "]") or not mark:
            fault = "its list ends without a ]" if not mark else "its list lacks a comma"
            raise unreadable(path, f"{fault} after {_place(number, line)}", "Write it again.")
        place = _next(text, end + 1)
    if place < len(text):
        rest = text[place : place + 40]
        raise unreadable(path, f"more stands after its list: {rest!r}", "Leave one list, or one object a line.")


def _next(text: str, place: int) -> int:
    """Where the next character is that is no white space."""
    space = _SPACE.match(text, place)
    return space.end() if space else place


def is_document(file: IO[bytes]) -> bool:
    """Whether the text from here on is a list; the file is left where it was."""
    start = file.tell()
    head = file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()
    file.seek(start)
    return head.startswith(b"[")


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked."""
    with path.open("rb") as raw:
        yield cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if path.name.lower().endswith(".gz") else raw
