"""Text with one row a line and a separator between the fields: CSV, TSV and RecBole's atomic files."""

from __future__ import annotations

import csv
import io
from typing import Literal

import polars as pl
from polars.selectors import by_name  # a column may be called *, which would be all of them

from dealrec.data.readers.blocks import Text
from dealrec.data.readers.faults import not_utf8, unreadable
from dealrec.data.readers.jsonl import Keep
from dealrec.data.readers.kinds import separator_fault
from dealrec.data.readers.quoting import Quoting, quoting
from dealrec.errors import DataError


def read_delimited(
    text: Text, separator: str, keep: Keep, *, quoted: bool = True
) -> tuple[pl.DataFrame, list[str], tuple[str, ...]]:
    """The columns to keep as text, the names of all, and warnings. quoted: fields may be in quotes.

    Raises DataError, with the row, for text that is not UTF-8, rows with more fields than the header has, and quote
    marks that do not add up.
    """
    if fault := separator_fault(text.path, text.head(), separator):
        raise fault
    style = quoting(text, separator) if quoted else Quoting(quotes=False)
    parts: list[pl.DataFrame] = []
    header, names, rows, blank = b"", list[str](), 0, b""
    for block in text.blocks(quoted=style.quotes, escaped=style.escaped > 0):
        body = blank + block
        if not header:
            header, body = _header(body, style)
            names = _names(text, header, separator, style)
        # Blank lines, with separators or without, are no rows at the end of the file, and else rows without values.
        content = body.rstrip(separator.encode() + b"\r\n")
        blank = body[len(content) :].partition(b"\n")[2] if content else body
        parts.append(_frame(text, header, content, separator, style, keep, names, rows))
        rows += parts[-1].height
    return (pl.concat(parts) if parts else pl.DataFrame()), names, style.warnings


def _header(block: bytes, style: Quoting) -> tuple[bytes, bytes]:
    block = block.lstrip(b"\r\n")
    end = block.find(b"\n") + 1
    while style.quotes and end and block.count(b'"', 0, end) % 2:
        end = block.find(b"\n", end) + 1
    end = end or len(block)
    return block[:end].removesuffix(b"\n") + b"\n", block[end:]


def _names(text: Text, header: bytes, separator: str, style: Quoting) -> list[str]:
    try:
        header.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(text.path, "in the header") from error
    return pl.read_csv(header, separator=separator, quote_char=_mark(style), infer_schema=False, glob=False).columns


def _frame(
    text: Text, header: bytes, body: bytes, separator: str, style: Quoting, keep: Keep, names: list[str], rows: int
) -> pl.DataFrame:
    """The rows of a block; rows: those before it."""
    columns = keep(pl.Schema(dict.fromkeys(names, pl.String()))) or names[:1]
    try:  # all columns, since rows with too many fields are noticed so alone
        block = pl.read_csv(header + body, separator=separator, quote_char=_mark(style), infer_schema=False, glob=False)
        return block.select(by_name(*columns))
    except pl.exceptions.PolarsError as error:
        fault = _fault(text, body, separator, style, names, rows)
        raise fault or unreadable(text.path, str(error).splitlines()[0], "Write it again.") from error


def _mark(style: Quoting) -> str | None:
    return '"' if style.quotes else None


def _fault(text: Text, block: bytes, separator: str, style: Quoting, names: list[str], offset: int) -> DataError | None:
    """What is wrong in the block, with the first row that has it; offset: the rows before it."""
    lossy = io.StringIO(block.decode(errors="surrogateescape"), newline="")
    mode: Literal[0, 3] = csv.QUOTE_MINIMAL if style.quotes else csv.QUOTE_NONE
    csv.field_size_limit(2**31 - 1)
    for number, row in enumerate(csv.reader(lossy, delimiter=separator, quoting=mode), start=offset + 1):
        for name, value in zip(names, row, strict=False):
            if any("\udc80" <= character <= "\udcff" for character in value):
                return not_utf8(text.path, f"data row {number:,}, column '{name}'")
        if len(row) > len(names):
            mark = "tab" if separator == "\t" else "comma"
            return unreadable(
                text.path,
                f"data row {number:,} has {len(row):,} fields, and the header has {len(names):,}",
                f"Put a field that holds a {mark} into quotes, and give each column a name.",
            )
    return None
