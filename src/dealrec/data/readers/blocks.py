"""A text file in blocks of whole lines: of a file of any size, one block is in memory at a time."""

from __future__ import annotations

import gzip
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from dealrec.data.readers.faults import line_ends_fault, require_utf8, unreadable
from dealrec.errors import DataError

SIZE = 2**20
LONGEST_LINE = 2**28  # bytes: what a stray quote mark joins, or a file without line ends, would fill the memory
MOST_PACKED = 200  # times its size that a packed file may hold, beyond a gigabyte: tables come to some ten


@dataclass
class Text:
    """A text file, packed with gzip where its name ends so. limit: bytes that are read of it at most; None: all.

    share: of the file, what was read by the last walk over its blocks.
    """

    path: Path
    limit: int | None = None
    share: float = field(default=1.0, init=False)

    def blocks(self, *, quoted: bool = False, escaped: bool = False) -> Iterator[bytes]:
        r"""Blocks that end with a line; a byte order mark is left out.

        quoted: a line end within quotes ends no line. escaped: a quote mark is written \" there, and comes as "".
        With a limit, a last line that is cut is left out.
        """
        buffer, size, cut = b"", 0, False
        with self.path.open("rb") as raw:
            gzipped = self.path.name.lower().endswith(".gz")
            file = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if gzipped else raw
            while chunk := file.read(SIZE if self.limit is None else min(SIZE, self.limit - size)):
                if not size:
                    require_utf8(self.path, chunk)
                    if b"\r" in chunk.strip() and b"\n" not in chunk.strip():
                        raise line_ends_fault(self.path)
                    chunk = chunk.removeprefix(BOM_UTF8)
                size += len(chunk)
                buffer += chunk
                if gzipped:
                    require_sane(self.path, size)
                end = _end(buffer, quoted=quoted, escaped=escaped) if len(buffer) >= SIZE else 0
                if not end and len(buffer) > LONGEST_LINE:
                    raise too_long(self.path)
                if end:
                    yield _plain(buffer[:end], escaped=escaped)
                    buffer = buffer[end:]
            cut = self.limit is not None and bool(file.read(1))
            self.share = min(0.99, raw.tell() / self.path.stat().st_size) if cut else 1.0
        buffer = buffer[: _end(buffer, quoted=quoted, escaped=escaped)] if cut else buffer
        if buffer:
            yield _plain(buffer, escaped=escaped)

    def head(self) -> str:
        """The first line with something in it, as far as it is UTF-8."""
        block = next(self.blocks(), b"").lstrip(b"\r\n")
        return block.partition(b"\n")[0].rstrip(b"\r").decode(errors="replace")

    def lines(self, *, escaped: bool = False) -> Iterator[bytes]:
        """The lines without their ends."""
        for block in self.blocks(escaped=escaped):
            yield from (line.removesuffix(b"\r") for line in block.removesuffix(b"\n").split(b"\n"))


def require_sane(path: Path, size: int) -> None:
    """Raise DataError for a packed file that unpacks to far more than tables do. size: what it came to so far."""
    if size > max(2**30, MOST_PACKED * path.stat().st_size):
        raise unreadable(
            path,
            f"it unpacks to more than {MOST_PACKED} times its size, as no table does",
            "Unpack it, and look at it.",
        )


def too_long(path: Path) -> DataError:
    """The error for a line, or a row in quotes, that goes on and on."""
    return unreadable(
        path,
        f"a row of it is longer than {LONGEST_LINE // 2**20} MiB",
        "End each row with a line end, and close quotes.",
    )


def _end(text: bytes, *, quoted: bool, escaped: bool) -> int:
    """Where the last whole line ends: after a line end that no quote marks enclose."""
    if not quoted:
        return text.rfind(b"\n") + 1
    inside = (text.count(b'"') - escaped * text.count(b'\\"')) % 2 == 1
    stop = end = len(text)  # the marks before `stop` are still to be looked at, the line ends before `end`
    while True:
        mark = text.rfind(b'"', 0, stop)
        if mark > 0 and escaped and text[mark - 1 : mark] == b"\\":
            stop = mark - 1
            continue
        if not inside and (line_end := text.rfind(b"\n", mark + 1, end)) >= 0:
            return line_end + 1
        if mark < 0:
            return 0
        inside, stop, end = not inside, mark, mark


def _plain(block: bytes, *, escaped: bool) -> bytes:
    return block.replace(b'\\"', b'""') if escaped else block
