"""A text file in blocks of whole lines: of a file of any size, one block is in memory at a time."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from dealrec.data.readers.faults import not_utf8

SIZE = 2**20
_BOM = b"\xef\xbb\xbf"


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
                    chunk = self._without_mark(chunk)
                size += len(chunk)
                buffer += chunk
                end = _end(buffer, quoted=quoted, escaped=escaped) if len(buffer) >= SIZE else 0
                if end:
                    yield _plain(buffer[:end], escaped=escaped)
                    buffer = buffer[end:]
            cut = self.limit is not None and bool(file.read(1))
            self.share = min(0.99, raw.tell() / self.path.stat().st_size) if cut else 1.0
        buffer = buffer[: _end(buffer, quoted=quoted, escaped=escaped)] if cut else buffer
        if buffer:
            yield _plain(buffer, escaped=escaped)

    def _without_mark(self, head: bytes) -> bytes:
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise not_utf8(self.path, "it begins as UTF-16 does", encoding="utf-16")
        return head.removeprefix(_BOM)

    def head(self) -> str:
        """The first line with something in it, as far as it is UTF-8."""
        block = next(self.blocks(), b"").lstrip(b"\r\n")
        return block.partition(b"\n")[0].rstrip(b"\r").decode(errors="replace")

    def lines(self, *, escaped: bool = False) -> Iterator[bytes]:
        """The lines without their ends."""
        for block in self.blocks(escaped=escaped):
            yield from (line.removesuffix(b"\r") for line in block.removesuffix(b"\n").split(b"\n"))


def _end(text: bytes, *, quoted: bool, escaped: bool) -> int:
    """Where the last whole line ends."""
    end = text.rfind(b"\n") + 1
    while quoted and end and (text.count(b'"', 0, end) - escaped * text.count(b'\\"', 0, end)) % 2:
        end = text.rfind(b"\n", 0, end - 1) + 1
    return end


def _plain(block: bytes, *, escaped: bool) -> bytes:
    return block.replace(b'\\"', b'""') if escaped else block
