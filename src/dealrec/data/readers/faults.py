"""Why a file cannot be read, told from its bytes, with the remedy that goes with it."""

from __future__ import annotations

import codecs
import gzip
import shlex
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from dealrec.errors import DataError, first_line

_SIGNATURES = (
    (b"PAR1", "a Parquet file", "Let its name end in .parquet."),
    (b"\x1f\x8b", "packed with gzip", "Let its name end in .gz, or unpack it: gzip -d."),
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "Unpack it (unzip), or save the sheet as CSV."),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "Save the sheet as CSV."),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "Unpack it: zstd -d."),
    (b"BZh", "packed with bzip2", "Unpack it: bzip2 -d."),
    (b"\xfd7zXZ", "packed with xz", "Unpack it: xz -d."),
    (b"7z\xbc\xaf", "a 7z archive", "Unpack it."),
    (b"\x89HDF", "an HDF5 file", "Write it as Parquet."),
    (b"ARROW1", "an Arrow (Feather) file", "Write it as Parquet."),
    (b"Obj\x01", "an Avro file", "Write it as Parquet."),
    (b"ORC", "an ORC file", "Write it as Parquet."),
    (b"SQLite format 3", "an SQLite database", "Write the table as Parquet or CSV."),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "Fetch the file: git lfs pull."),
    (b"<!doctype html", "a web page", "Download the file itself."),
    (b"<html", "a web page", "Download the file itself."),
)
_ENCODINGS = {  # by their byte order marks
    **dict.fromkeys((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "utf-32"),
    **dict.fromkeys((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "utf-16"),
}
_HEAD = 64  # bytes
_ONE_LINE_END = "import sys; [print(line, end='') for line in sys.stdin]"
READ_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, EOFError, zlib.error)


def unreadable(path: Path, reason: str, remedy: str) -> DataError:
    """The error for a file that is there and cannot be read."""
    return DataError(f"{path}: cannot be read: {reason}", remedy)


def read_error(path: Path, error: BaseException) -> DataError:
    """The error for a file on which a reader gave up, with the remedy for that reason."""
    reason = first_line(error)
    if isinstance(error, PermissionError):
        return unreadable(path, "permission denied", f"Let yourself read it: chmod u+r {shlex.quote(str(path))}")
    if isinstance(error, EOFError | zlib.error | gzip.BadGzipFile):
        return unreadable(path, f"the packed data are cut or damaged ({reason})", "Copy or download it again.")
    if path.name.lower().endswith(".parquet") and not _ends_in(path, b"PAR1"):
        return unreadable(path, f"it has no end, so it was cut or is half written ({reason})", "Write it again.")
    return unreadable(path, reason, "Write it again.")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise DataError, which names the file, for whatever a library gives up on while it reads it or its values."""
    try:
        yield
    except READ_ERRORS as error:
        raise read_error(path, error) from error


def require_file(path: Path) -> None:
    """Raise DataError unless `path` is a file with something in it."""
    try:
        str(path).encode()
        size = path.stat().st_size
    except UnicodeEncodeError as error:
        raise DataError(f"{str(path)!a}: the name of the file is not UTF-8", "Rename it.") from error
    except PermissionError as error:
        raise read_error(path, error) from error
    except ValueError as error:  # a null in it
        raise DataError(f"{str(path)!a}: the system has no files of that name", "Check data.interactions.") from error
    except OSError as error:
        raise DataError(f"{path}: no such file", "Check data.interactions and data.items.") from error
    if not path.is_file():
        raise DataError(f"{path}: not a file", "Name the file itself in data.interactions or data.items.")
    if size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes)", "Write it again.")


def require_content(path: Path) -> None:
    """Raise DataError if the first bytes are of another kind of file than the ending says."""
    require_file(path)
    try:
        kind = signature(path)
    except OSError as error:
        raise read_error(path, error) from error
    name = path.name.lower()
    ending = "a Parquet file" if name.endswith(".parquet") else "packed with gzip" if name.endswith(".gz") else None
    if kind is not None and kind[0] != ending:
        raise unreadable(path, f"it is {kind[0]}, whatever its name ends in", kind[1])
    if kind is None and ending is not None:
        raise unreadable(path, f"it is not {ending}, as its name says", "Rename it by what it is, or write it again.")


def signature(path: Path) -> tuple[str, str] | None:
    """What kind of file the first bytes say this is, and what to do about it; None for plain text, and the unknown."""
    with path.open("rb") as file:
        head = file.read(64)
    kinds = (kind for mark, *kind in _SIGNATURES if head.startswith(mark) or head.lstrip().lower().startswith(mark))
    kind = next(kinds, None)
    return (kind[0], kind[1]) if kind else None


def not_utf8(path: Path, place: str, *, encoding: str = "latin1") -> DataError:
    """The error for text in another encoding. place: in words, where it was noticed."""
    remedy = f"Convert it: {_pipe_command(path, f'iconv -f {encoding} -t utf-8', ending=_bare_ending(path))}"
    if encoding == "latin1":
        remedy += " (or -f with the encoding that it was written in, such as cp1252, shift_jis or gb18030)"
    return unreadable(path, f"the text is not UTF-8 ({place})", remedy)


def require_utf8(path: Path, head: bytes) -> None:
    """Raise DataError for a text that begins as UTF-16 or UTF-32 does, with a byte order mark or without."""
    encoding = next((name for mark, name in _ENCODINGS.items() if head.startswith(mark)), None)
    zeros = [head[first:_HEAD:2].count(0) for first in (0, 1)]
    if encoding is None and min(zeros) == 0 and 4 * max(zeros) > len(head[:_HEAD]):  # the letters of a header's names
        encoding = "utf-16be" if zeros[0] else "utf-16le"
    if encoding is not None:
        raise not_utf8(path, f"it begins as {encoding[:6].upper()} does", encoding=encoding)


def line_ends_fault(path: Path) -> DataError:
    """The error for a text whose lines end in carriage returns."""
    command = conversion_command(path, _ONE_LINE_END, ending=_bare_ending(path))
    return unreadable(path, "its lines end in CR alone", f"Convert it: {command}")


def conversion_command(path: Path, program: str, *, ending: str) -> str:
    """A shell command that makes a file of that ending with a Python program that reads lines from stdin."""
    return _pipe_command(path, f'python -c "{program}"', ending=ending)


def _pipe_command(path: Path, command: str, *, ending: str) -> str:
    """A shell command that hands the unpacked file through another, into a new file beside it."""
    reader = "gzip -dc" if path.name.lower().endswith(".gz") else "cat"
    out = path.with_name(f"{path.name.split('.')[0] or 'table'}-converted{ending}")
    return f"{reader} {shlex.quote(str(path))} | {command} > {shlex.quote(str(out))}"


def _bare_ending(path: Path) -> str:
    return Path(path.name[:-3]).suffix if path.name.lower().endswith(".gz") else path.suffix


def _ends_in(path: Path, mark: bytes) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(mark)))
        return file.read() == mark
