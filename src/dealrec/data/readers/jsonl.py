"""JSON Lines: one object a line; what is nearly so is read where nothing is lost, and else named with its line."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl
from polars.selectors import by_name  # a column may be called *, which would be all of them

from dealrec.data.readers.blocks import Text
from dealrec.data.readers.faults import conversion_command, not_utf8, unreadable
from dealrec.errors import DataError, first_line

Keep = Callable[[pl.Schema], list[str]]  # the columns that are read, of all those that there are

_DOCUMENT = (
    "import json,sys; d=json.load(sys.stdin); d=d if isinstance(d,list) else next(v for v in d.values()"
    " if isinstance(v,list)); [print(json.dumps(r)) for r in d]"
)
_LITERALS = "import ast,json,sys; [print(json.dumps(ast.literal_eval(r))) for r in sys.stdin]"


# A code point beyond 65,535 is written as two; half of one is what is left where a text was cut between them.
_HALVES = re.compile(rb"\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})", re.DOTALL)


class _RepeatedName(Exception):
    """An object names a field twice, so that readers differ in what it holds."""


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedName(next(name for name in names if names.count(name) > 1))
    return value


_STRICT = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_object)


def read_jsonl(text: Text, keep: Keep) -> tuple[pl.DataFrame, list[str]]:
    """The columns to keep, and the names of all. The types of a column are settled by all of its rows.

    NaN is read as null, half of a character as U+FFFD. Raises DataError, with the line and how to convert the file, for
    what holds no object a line, and for an object that names a column twice.
    """
    parts: list[pl.DataFrame] = []
    schema: dict[str, pl.DataType] = {}
    lines = 0
    for block in text.blocks():
        frame = _frame(text, _whole_characters(block), lines, keep)
        lines += block.count(b"\n")
        if frame.width:
            schema |= {name: kind for name, kind in frame.schema.items() if schema.get(name, pl.Null) == pl.Null}
            # Where a block has none of the columns, another one keeps the number of its rows.
            parts.append(frame.select(by_name(*(keep(frame.schema) or frame.columns[:1]))))
    if not parts:
        return pl.DataFrame(), []
    table = pl.concat(parts, how="diagonal_relaxed")
    if table.height == 1 and all(kind.is_nested() for kind in schema.values()):
        raise document_fault(text)
    return table.select(by_name(*(keep(pl.Schema(schema)) or table.columns))), list(schema)


def _frame(text: Text, block: bytes, offset: int, keep: Keep) -> pl.DataFrame:
    try:
        frame = pl.read_ndjson(block, infer_schema_length=None) if block.strip() else pl.DataFrame()
    except pl.exceptions.PolarsError:
        return _line_by_line(text, block, offset)
    _require_single_names(text, block, offset, {name: frame[name].count() for name in keep(frame.schema)})
    return frame


def _require_single_names(text: Text, block: bytes, offset: int, counts: Mapping[str, int]) -> None:
    """Raise DataError for a line that names a column twice, of which polars reads the first. counts: of their values.

    Where a name occurs no more often than its column has values there is no such line; else those are parsed that it
    may be.
    """
    marks = [
        mark
        for name, count in counts.items()
        if block.count(mark := json.dumps(name, ensure_ascii=False).encode()) > count
    ]
    for number, line in enumerate(block.split(b"\n") if marks else (), start=offset + 1):
        if any(line.count(mark) > 1 for mark in marks):
            json_object(text, line, number, b"")


def _whole_characters(block: bytes) -> bytes:
    if not re.search(rb"\\u[dD][89a-fA-F]", block):
        return block
    return _HALVES.sub(lambda match: rb"\ufffd" if match[1] else match[0], block)


def _line_by_line(text: Text, block: bytes, offset: int) -> pl.DataFrame:
    """The block line by line; offset: the lines before it."""
    if not offset and block.lstrip().startswith(b"[") and not _is_row(block.lstrip().partition(b"\n")[0]):
        raise document_fault(text)
    rows = []
    for number, line in enumerate(block.split(b"\n"), start=offset + 1):
        if line.strip():
            rows.append(json.dumps(json_object(text, line, number, block if number == 1 else b"")))
    try:
        return pl.read_ndjson("\n".join(rows).encode(), infer_schema_length=None)
    except pl.exceptions.PolarsError:  # a column of objects here and numbers there
        try:
            return pl.DataFrame([json.loads(row) for row in rows], infer_schema_length=None, strict=False)
        except (TypeError, ValueError, OverflowError) as error:  # such as numbers beyond 128 bits
            raise unreadable(text.path, first_line(error), "Write values that a table can hold.") from error


def json_object(text: Text, line: bytes, number: int, block: bytes) -> dict[str, Any]:
    """The object on a line. block: what begins with it, of a first line.

    Raises DataError for what is none, and where an object has two fields of one name.
    """
    place = f"line {number:,}"
    try:
        content = _whole_characters(line).decode()
    except UnicodeDecodeError as error:
        raise not_utf8(text.path, place) from error
    try:
        value = _decoded(text, content, place)
    except (ValueError, RecursionError) as error:
        raise _fault(text, content, place, block, error) from error
    except _RepeatedName as error:
        raise unreadable(text.path, f"{place} names '{error}' twice in one object", "Leave one of them.") from None
    if not isinstance(value, dict):
        raise unreadable(text.path, f"{place} is no JSON object: {content[:40]!r}", "Write one object a line.")
    return value


def _decoded(text: Text, line: str, place: str) -> Any:
    try:
        return _STRICT.decode(line)
    except ValueError:  # or a constant, which is named
        return json.loads(line, parse_constant=lambda name: _constant(text, name, place), object_pairs_hook=_object)


def _constant(text: Text, name: str, place: str) -> None:
    if name != "NaN":
        raise unreadable(text.path, f"{place} holds {name}, which is no JSON", "Write a number or null in its place.")


def _fault(text: Text, line: str, place: str, block: bytes, error: ValueError | RecursionError) -> DataError:
    if isinstance(_parse(ast.literal_eval, line), dict):
        return unreadable(
            text.path,
            f"{place} is a Python literal, not JSON: {line[:40]!r}",
            f"Convert it: {conversion_command(text.path, _LITERALS, ending='.jsonl')}",
        )
    if block and (line.strip() == "{" or _parse(json.loads, block) is not None):
        return document_fault(text)
    if _parse(json.loads, line.rstrip().removesuffix(",")) is not None:
        return unreadable(text.path, f"{place} ends in a comma", "Write one object a line, without commas between.")
    if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
        return unreadable(text.path, f"{place} holds more than one object", "Write one object a line.")
    return unreadable(
        text.path, f"{place} is cut or damaged, for it is no JSON: {line[:60]!r}", "Mend or delete that line."
    )


def document_fault(text: Text) -> DataError:
    """The error for a file that is one JSON document, with the command that converts it."""
    return unreadable(
        text.path,
        "it is one JSON document, not one object a line (line 1)",
        f"Convert it: {conversion_command(text.path, _DOCUMENT, ending='.jsonl')}"
        " (in pandas: to_json(orient='records', lines=True))",
    )


def _parse(parser: Callable[[Any], Any], text: str | bytes) -> Any:
    """What the parser makes of the text; None where it refuses it."""
    try:
        return parser(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _is_row(line: bytes) -> bool:
    """A line that is a list of values: no object, but no beginning of a document either."""
    value = _parse(json.loads, line)
    return isinstance(value, list) and bool(value) and not isinstance(value[0], dict | list)
