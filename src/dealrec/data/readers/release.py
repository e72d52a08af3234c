"""The text files of the DEALRec release: a user a line, `user item item ...`, one file for each split."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from dealrec import columns
from dealrec.data.readers.faults import not_utf8, read_error, require_file
from dealrec.data.values import TEST, TRAIN, VALID
from dealrec.errors import DataError

_BOUND = 2**63


def release_files(folder: Path) -> dict[str, Path]:
    """Return the file of each split."""
    return {split: folder / f"sequential_{split}.txt" for split in (TRAIN, VALID, TEST)}


def read_release(folder: Path) -> pl.DataFrame:
    """Read user_id, item_id, timestamp (position within the user over train, valid and test) and split.

    Raises DataError for a folder or file that is missing, for a train or test file without interactions (valid may
    be empty), and for a line that does not hold integers.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder",
            "With data.format 'dealrec', data.interactions is the folder of the text files.",
        )
    parts = []
    for split, path in release_files(folder).items():
        part = _read_lines(path, may_be_empty=split == VALID)
        parts.append(part.with_columns(pl.lit(split).alias(columns.SPLIT)))
    position = pl.int_range(pl.len(), dtype=pl.Int64).over(columns.USER).alias(columns.TIMESTAMP)
    return pl.concat(parts).select(columns.USER, columns.ITEM, position, columns.SPLIT)


def _read_lines(path: Path, *, may_be_empty: bool) -> pl.DataFrame:
    if not (may_be_empty and path.is_file()):
        require_file(path)
    users: list[int] = []
    items: list[int] = []
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                tokens = [_integer(token, path=path, number=number) for token in line.split()]
                users.extend(tokens[:1] * (len(tokens) - 1))
                items.extend(tokens[1:])
    except UnicodeDecodeError as error:
        raise not_utf8(path, f"byte {error.start + 1:,} of a block") from error
    except OSError as error:
        raise read_error(path, error) from error
    if not items and not may_be_empty:
        raise DataError(f"{path}: the file is empty (no interactions)", "Write it again.")
    return pl.DataFrame(
        {columns.USER: users, columns.ITEM: items}, schema={columns.USER: pl.Int64, columns.ITEM: pl.Int64}
    )


def _integer(token: str, *, path: Path, number: int) -> int:
    # int() would also take "1_0" and digits of other scripts.
    digits = token.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) < 20 and -_BOUND <= int(token) < _BOUND:
        return int(token)
    raise DataError(f"{path}: line {number:,} holds {token[:40]!r}, not an integer", "Each line is: user item item ...")
