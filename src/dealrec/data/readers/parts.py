"""Tables in parts: a folder with the files of one table, as Spark writes it, and numbered shards."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from glob import escape
from pathlib import Path

from dealrec.data.readers.faults import require_file
from dealrec.errors import DataError

_SHARD = re.compile(r"(?P<before>.*?)-(?P<number>\d+)-of-(?P<count>\d+)(?P<after>\D.*|$)")
_LOGS = {
    "_delta_log": ("a Delta table", "pl.read_delta"),
    ".hoodie": ("a Hudi table", "spark.read.format('hudi').load"),
}
_VARIES = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{8,}|\d+")


def files_of(path: Path) -> list[Path]:
    """The files that hold a table: the file itself, or the parts in a folder by name.

    Hidden files and those whose names begin with `_` are no parts. Nothing is opened.
    """
    if not path.is_dir():
        return [path]
    parts = (part for part in path.iterdir() if part.is_file() and not part.name.startswith((".", "_")))
    return sorted(parts, key=lambda part: part.name)


def table_files(path: Path, endings: Collection[str]) -> list[Path]:
    """The files that hold a table, those without a byte left out of several.

    Raises DataError for a file that is missing or empty, and for a folder that is not, or not safely, the parts of one
    table: other folders in it, files of several kinds or names, a shard that is missing, a table with a log of its own.
    """
    if not path.is_dir():
        require_file(path)
        return [path]
    parts = files_of(path)
    for log, (kind, reader) in _LOGS.items():
        if (path / log).exists():
            raise DataError(
                f"{path}: a folder of {kind}, whose log says which of its files count",
                f"Write it as one Parquet file: {reader}({str(path)!r}), then write_parquet('table.parquet').",
            )
    if (path / "_temporary").exists():
        raise DataError(f"{path}: a folder that is still being written (_temporary)", "Wait for it, or write it again.")
    folders = sorted(part.name for part in path.iterdir() if part.is_dir() and not part.name.startswith((".", "_")))
    if folders:
        raise DataError(
            f"{path}: a folder with folders in it ({folders[0]}), not the files of one table",
            f"Name a file in data.interactions or data.items; if they are parts of one: {_join_command(path, '**/*')}",
        )
    if not is_parts(path, endings):
        names = ", ".join(part.name for part in parts[:4]) or "no file"
        raise DataError(
            f"{path}: not a file, but a folder, without the parts of one table in it, or of several ({names})",
            "Name the files in it, in data.interactions and data.items.",
        )
    _require_all_shards(path, parts)
    return [part for part in parts if part.stat().st_size] or parts


def is_parts(path: Path, endings: Collection[str]) -> bool:
    """Whether the files in a folder are of one kind, and called alike but for numbers."""
    parts = files_of(path)
    readable = all(part.name.lower().endswith(tuple(endings)) for part in parts)
    return bool(parts) and readable and len({_VARIES.sub("#", part.name) for part in parts}) == 1


def is_table(path: Path, endings: Collection[str]) -> bool:
    """Whether a folder is meant as one table: as Spark and others mark it, or by what its files are called."""
    if not path.is_dir() or not is_parts(path, endings):
        return False
    by_name = path.name.lower().endswith(tuple(endings)) or (path / "_SUCCESS").exists()
    return by_name or all(
        re.match(r"part[-_.]?\d", part.name) or _SHARD.fullmatch(part.name) for part in files_of(path)
    )


def shards_of(path: Path) -> list[Path]:
    """The numbered shards beside a file that is one of them (`train-00000-of-00002.parquet`); else the path alone."""
    shard = _SHARD.fullmatch(path.name)
    if shard is None or not path.is_file():
        return [path]
    alike = (_SHARD.fullmatch(part.name) for part in files_of(path.parent))
    names = ("before", "count", "after")
    return [path.parent / part[0] for part in alike if part and part.group(*names) == shard.group(*names)]


def sibling_note(path: Path) -> str | None:
    """What to say of a file that is one of several numbered shards or parts of a table; None if it is none."""
    shard = _SHARD.fullmatch(path.name)
    if shard is not None:
        count = int(shard["count"])
        pattern = f"{escape(shard['before'])}-*-of-{shard['count']}{escape(shard['after'])}"
    elif re.match(r"part[-_.]?\d", path.name):
        form = _VARIES.sub("#", path.name)
        count = sum(_VARIES.sub("#", part.name) == form for part in files_of(path.parent))
        pattern = f"part*{escape(path.suffix)}"
    else:  # interactions_1.csv beside interactions_2.csv, log-2023.parquet beside log-2024.parquet
        form = re.sub(r"\d+", "#", path.name)
        count = sum(re.sub(r"\d+", "#", part.name) == form for part in files_of(path.parent))
        pattern = escape(form).replace("#", "*")
        if "#" not in form or count < 2:
            return None
        return (
            f"{path.name} is one of {count:,} files called {pattern}, and the others are not read: if they are parts of"
            " one table, put them into a folder of their own and name the folder"
        )
    if count < 2:
        return None
    return (
        f"{path.name} is one of {count:,} parts of a table, and the others are not read: put {pattern} into a folder"
        " of their own and name the folder to have all of them read as one table"
    )


def _require_all_shards(path: Path, parts: list[Path]) -> None:
    shards = [shard for part in parts if (shard := _SHARD.fullmatch(part.name))]
    if shards and len(shards) != int(shards[0]["count"]):
        raise DataError(f"{path}: {len(shards):,} of {int(shards[0]['count']):,} shards are there", "Fetch the others.")


def _join_command(path: Path, pattern: str) -> str:
    """A shell command that makes one file beside the folder of all Parquet files in it."""
    parts, out = f"{escape(str(path))}/{pattern}.parquet", path.with_name(f"{path.name.split('.')[0]}-joined.parquet")
    program = f"import polars as pl; pl.scan_parquet({parts!r}).sink_parquet({str(out)!r})"
    return f"python -c {shlex.quote(program)}"
