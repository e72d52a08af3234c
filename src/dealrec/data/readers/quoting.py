"""How a text file quotes its fields, told from all of its lines: one stray quote mark swallows rows in silence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from dealrec.data.readers.blocks import SIZE, Text
from dealrec.data.readers.faults import unreadable

_REMEDY = (
    "Write it with a program that quotes as CSV does (a quote mark within quotes is doubled), or as Parquet;"
    " tab-separated text that quotes nothing may hold quote marks as they are."
)


@dataclass(frozen=True)
class Quoting:
    """quotes: whether quote marks enclose fields, or are text like any other; escaped: lines with \\" for a quote."""

    quotes: bool
    escaped: int = 0
    warnings: tuple[str, ...] = ()


@dataclass
class _Marks:
    """What the lines with quote marks look like. broken: not well-formed by themselves."""

    lines: int = 0
    broken: int = 0
    opened: int = 0  # of the broken ones, those with a field that begins with a quote mark
    escaped: int = 0
    proof: bool = False  # a field that had to be quoted, and is


def quoting(text: Text, separator: str) -> Quoting:
    """How the file quotes, so that no row is lost.

    Quote marks enclose fields where every line is well-formed so. Where some are not, they are text in tab-separated
    files that show no sign of quoting and have as many fields in each line, and in those without a field that begins
    with one. Otherwise fields may run over line ends; then each such row must be well-formed.
    Raises DataError, with the row, where that does not add up.
    """
    form = _Form(separator)
    marks = _marks(text, form)
    if not marks.broken:
        return Quoting(quotes=marks.lines > 0)
    if not marks.opened and not marks.proof:
        return Quoting(quotes=False)
    if separator == "\t" and not marks.proof and not marks.escaped:
        field_counts = {line.count(form.separator) for line in text.lines() if line}
        if len(field_counts) == 1:
            return Quoting(quotes=False)
    broken, warnings = _multi_line(text, form, marks, escaped=False)
    if broken is None:
        return Quoting(quotes=True, warnings=warnings)
    if marks.escaped and _multi_line(text, form, marks, escaped=True)[0] is None:
        return _escaping(text, marks.escaped)
    raise unreadable(text.path, f"the quote marks in {broken} do not add up, so that rows may be lost", _REMEDY)


class _Form:
    """The form of a line in a file that quotes."""

    def __init__(self, separator: str) -> None:
        mark = re.escape(separator)
        quoted = r'"[^"]*(?:""[^"]*)*"'
        # Within a field that is not quoted, quote marks come in pairs, such as in: a so-called "hit".
        plain = rf'[^"{mark}]+(?:"[^"{mark}]*"[^"{mark}]*)*'
        field = rf"(?:{quoted}|{plain})?"
        self.separator = separator.encode()
        self.row = re.compile(rf"{field}(?:{mark}{field})*\r?".encode(), re.DOTALL)
        self.opened = re.compile(rf'(?:^|{mark})"'.encode())

    def quoted(self, line: bytes) -> tuple[bool, bool]:
        """Whether the line is of the form with quote marks around fields alone, and whether one of them had to be."""
        pieces = line.removesuffix(b"\r").split(b'"')
        if len(pieces) % 2 == 0:
            return False, False
        first, *between, last = pieces[::2]
        mark = self.separator
        form = (
            (not first or first.endswith(mark))
            and (not last or last.startswith(mark))
            and all(not piece or (piece.startswith(mark) and piece.endswith(mark)) for piece in between)
        )
        return form, form and (b"" in between or any(mark in piece for piece in pieces[1::2]))


def _marks(text: Text, form: _Form) -> _Marks:
    marks, header = _Marks(), True
    for block in text.blocks():
        if b'"' in block:
            for line in block.split(b"\n"):
                if b'"' in line:
                    _count(marks, line, form, header=header)
                header = False
        header = False
    return marks


def _count(marks: _Marks, line: bytes, form: _Form, *, header: bool) -> None:
    marks.lines += 1
    quoted, proof = form.quoted(line)
    if quoted or form.row.fullmatch(line):  # the pattern is slow
        marks.proof = marks.proof or (header and quoted) or proof
        return
    marks.broken += 1
    marks.opened += bool(form.opened.search(line))
    marks.escaped += b'\\"' in line


def _escaping(text: Text, lines: int) -> Quoting:
    warning = (
        f'{text.path}: {lines:,} of its lines have \\" for a quote mark within quotes, as Spark writes it, and it is'
        ' read so; CSV doubles it: .option("escape", "\\"") in Spark'
    )
    return Quoting(quotes=True, escaped=lines, warnings=(warning,))


def _multi_line(text: Text, form: _Form, marks: _Marks, *, escaped: bool) -> tuple[str | None, tuple[str, ...]]:
    """Check each row, which may run over line ends: it is well-formed, and not several that a stray mark has joined.

    Returns the place of the first that is not well-formed, and warnings. Raises DataError for rows that look joined.
    """
    joined, first, fields = 0, 0, -1
    for number, row in enumerate(_rows(text, escaped=escaped)):
        outside, inside = row.split(b'"')[::2], row.split(b'"')[1::2]
        count = sum(piece.count(form.separator) for piece in outside)
        fields = count if fields < 0 else fields
        if b'"' not in row:
            continue
        if not (form.quoted(row)[0] or form.row.fullmatch(row)) or (b"\n" in row and count != fields):
            return (f"data row {number:,}" if number else "the header"), ()
        lines = row.split(b"\n")
        alike = len(lines) > 1 and all(line.count(form.separator) == fields for line in lines)
        tabs = (
            form.separator == b"\t" and not marks.proof and any(b"\n" in piece and b"\t" in piece for piece in inside)
        )
        if alike or tabs:
            joined, first = joined + 1, first or number
    # A row over line ends has two broken lines or more. Prose may by chance have as many commas in each line.
    if 4 * joined > marks.broken:
        fault = f"in data row {first:,} a quoted field runs over a line end, and its lines look like rows of their own"
        raise unreadable(text.path, f"{fault}, which a stray quote mark has joined", _REMEDY)
    warning = (
        f"{text.path}: {joined:,} rows with a quoted field that runs over line ends could be several rows each"
        f" that a stray quote mark has joined, the first in data row {first:,}: look at it"
    )
    return None, (warning,) if joined else ()


def _rows(text: Text, *, escaped: bool) -> Iterator[bytes]:
    """Lines, joined while a quote is open."""
    row: list[bytes] = []
    opened, size = 0, 0
    for line in text.lines(escaped=escaped):
        row.append(line)
        opened, size = (opened + line.count(b'"')) % 2, size + len(line)
        if not opened or size > SIZE:
            yield b"\n".join(row)
            row, opened, size = [], 0, 0
    if row and text.share == 1.0:
        yield b"\n".join(row)
