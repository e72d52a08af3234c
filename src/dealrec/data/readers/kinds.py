"""What kind of table a file holds where its ending or its header does not say, and what to do about it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

import polars as pl

from dealrec.data.readers.faults import signature
from dealrec.errors import DataError

PICKLES = (".npy", ".npz", ".pkl", ".pickle", ".joblib", ".pt", ".pth")
_SEPARATORS = ("::", "\t", ";", "|", ",")
_HEAD = 2**16


def unknown_kind(path: Path, accepted: Collection[str]) -> DataError:
    """The error for a file whose ending says nothing, with what its beginning says of it."""
    kinds = ", ".join(accepted)
    if path.name.lower().endswith(PICKLES):
        return DataError(
            f"{path}: may hold a pickle, which can run any code when it is loaded, so it is refused",
            f"Save it as one of: {kinds}.",
        )
    cause = f"{path}: unknown kind of file"
    remedy = f"Accepted are: {kinds}; see also data.format."
    if not path.is_file():
        return DataError(cause, remedy)
    kind = signature(path)
    if kind is not None:
        return DataError(f"{cause}: it is {kind[0]}", f"{kind[1]} {remedy}")
    lines = _lines(path)
    if lines and lines[0].lstrip()[:1] in ("{", "["):
        return DataError(
            f"{cause}: it looks like JSON", f"Rename it, if it holds one object a line, to .jsonl. {remedy}"
        )
    mark = next((mark for mark in _SEPARATORS if lines and _separates(mark, lines)), None)
    if mark is None:
        return DataError(cause, remedy)
    return _separator_error(path, cause, mark, lines[0].split(mark))


def separator_fault(path: Path, header: str, separator: str) -> DataError | None:
    """The error for text whose first line has another separator and not this one."""
    mark = next((mark for mark in _SEPARATORS if separator not in header and mark in header), None)
    return _separator_error(path, f"{path}: {header[:60]!r}", mark, header.split(mark)) if mark else None


def header_fault(path: Path, names: Sequence[str], frame: pl.DataFrame) -> DataError | None:
    """The error for text without a line of names; None if there are names.

    names: of all columns; frame: those of them that were read.
    """
    numbers = [name for name in names if is_number(name)]
    head = frame.head(1000)
    candidates = [name for name in numbers[:1] if name == names[0] and name in head.columns]
    numeric = any(
        head[name].cast(pl.Float64, strict=False).null_count() == head[name].null_count() for name in candidates
    )
    # An id or a title that stands on top and again below it.
    repeated = any((head[name] == name).any() for name in head.columns if re.search(r"\d|\s", name))
    if numeric or repeated or 2 * len(numbers) >= len(names) > 1:
        return DataError(
            f"{path}: the first line holds values ({', '.join(names)[:60]}), not names of columns",
            "Write a line with the names of the columns on top.",
        )
    return None


def is_number(name: str) -> bool:
    """Whether the name of a column is a number; the mark of a repeated name is left out."""
    text = re.sub(r"_duplicated_\d+$", "", name).strip()
    return re.fullmatch(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", text) is not None


def _lines(path: Path) -> list[str]:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return [] if b"\x00" in head else [line for line in head.decode("latin1").splitlines()[:20] if line.strip()]


def _separates(mark: str, lines: Sequence[str]) -> bool:
    counts = {line.count(mark) for line in (lines if len(lines) < 20 else lines[:-1])}
    return min(counts) > 0 and (len(counts) == 1 or mark == "::")


def _separator_error(path: Path, cause: str, mark: str, fields: Sequence[str]) -> DataError:
    has_names = not any(is_number(field.strip().strip('"')) for field in fields)
    unnamed = "" if has_names else ", and it has no line of their names"
    fault = f"{cause}: its columns are separated by {mark!r}{unnamed}"
    if has_names and mark in (",", "\t"):
        return DataError(fault, f"Let its name end in {'.csv' if mark == ',' else '.tsv'}.")
    names = ", ".join(f'"NAME{place + 1}"' for place in range(len(fields)))
    header = "" if has_names else f"BEGIN {{print {names}}} "
    files = f"{shlex.quote(str(path))} > {shlex.quote(str(path.with_suffix('.tsv')))}"
    field_pattern = {"\t": "\\t", "|": "[|]"}.get(mark, mark)
    command = f"awk -F'{field_pattern}' -v OFS='\\t' '{header}{{$1=$1; print}}' {files}"
    advice = "Separate them by commas, or by tabs in a file whose name ends in .tsv"
    return DataError(fault, f"{advice}{'' if has_names else ', under a line of names of your own'}: {command}")
