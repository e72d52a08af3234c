"""What the values of a column mean: ids, times, ratings, splits and titles, each checked to the last row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import polars as pl

from dealrec import columns
from dealrec.data.tables import Column, refuse
from dealrec.errors import DataError

TRAIN, VALID, TEST = "train", "valid", "test"

_SPLITS = {TRAIN: TRAIN, "training": TRAIN, VALID: VALID, "validation": VALID, "val": VALID, "dev": VALID, TEST: TEST}
_ISO = (
    r"^(?<date>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?<minute>\d{2}:\d{2})(?<second>:\d{2}(?:\.\d{1,9})?)? ?(?<zone>Z|UTC|[+-]\d{2}(?::?\d{2})?)?)?$"
)
_EXACT = 2**53  # Beyond it, a float no longer holds every integer, and two ids may have become one.
_TIMES = "Use numbers, dates, or ISO 8601 text such as 2024-05-31T18:30:00."


@dataclass(frozen=True)
class Ids:
    """The ids of a column as text, and as integers if that loses nothing."""

    column: Column
    strings: pl.Series
    integers: pl.Series | None

    @property
    def values(self) -> pl.Series:
        """Integers where possible, otherwise text."""
        return self.strings if self.integers is None else self.integers


def ids(column: Column) -> Ids:
    """Read ids: integers, integral floats (pandas writes them beside a gap) or text; in untyped formats, either.

    Raises DataError for a missing or blank id, a fraction, and a type that is no id.
    """
    values = column.values
    if isinstance(values.dtype, pl.Categorical | pl.Enum):
        values = values.cast(pl.String)
    missing = values.is_null()
    if values.dtype == pl.String:
        missing = missing | (values.str.strip_chars() == "")
    elif values.dtype.is_float():
        missing = missing | values.is_nan()
    refuse(column, missing, fault="has no id", remedy="Fill in the ids, or remove these rows.")
    if values.dtype == pl.String:
        return Ids(column, values, _canonical(values) if column.text else None)
    if values.dtype.is_float() or values.dtype.is_decimal():
        fraction = (values != values.floor()) | (values.abs() > _EXACT)
        refuse(column, fraction, fault="has ids that are no whole numbers", remedy="Store ids as integers or text.")
    elif not values.dtype.is_integer():
        wrong_type(column, "ids", "Store ids as integers or text.")
    integers = values.cast(pl.Int64, strict=False)
    refuse(column, integers.is_null(), fault="has ids beyond 64 bits", remedy="Store these ids as text.")
    return Ids(column, integers.cast(pl.String), integers)


def reconcile(first: Ids, second: Ids) -> tuple[pl.Series, pl.Series]:
    """Bring the item ids of two files to one type: integers if both have them, otherwise text.

    Raises DataError if the second file then has none of the ids of the first.
    """
    if first.integers is not None and second.integers is not None:
        pair = first.integers, second.integers
    else:
        pair = first.strings, second.strings
    if not pair[0].is_in(pair[1].unique().implode()).any():
        raise DataError(
            f"no id in column '{first.column.name}' of {first.column.path} (such as {first.values[0]!r}) occurs"
            f" in column '{second.column.name}' of {second.column.path} (such as {second.values[0]!r})",
            "Write the ids alike in both files, and check data.columns.item.",
        )
    return pair


def timestamps(column: Column) -> pl.Series:
    """Read times: Int64 or Float64 as given; dates and ISO 8601 text as Int64 microseconds since 1970 (UTC).

    Raises DataError for a missing, infinite or unreadable time.
    """
    values = column.values
    refuse(column, values.is_null(), fault="has no time", remedy="Fill in the times, or remove these rows.")
    if isinstance(values.dtype, pl.Date | pl.Datetime):
        times = values.dt.epoch("us")
    elif values.dtype.is_integer():
        times = values.cast(pl.Int64, strict=False)
    elif values.dtype.is_float() or values.dtype.is_decimal():
        times = values.cast(pl.Float64)
    elif values.dtype == pl.String:
        times = _times_of_text(values.str.strip_chars())
    else:
        wrong_type(column, "times", _TIMES)
    refuse(column, times.is_null(), fault="cannot be read as a time", remedy=_TIMES)
    if times.dtype == pl.Float64:
        refuse(
            column, ~times.is_finite(), fault="is NaN or infinite", remedy="Fill in the times, or remove these rows."
        )
    return times.rename(columns.TIMESTAMP)


def ratings(column: Column) -> pl.Series:
    """Read ratings as Float64; DataError for one that is missing, NaN, infinite or not a number."""
    values, remedy = column.values, "Fill in the ratings, remove these rows, or check data.columns.rating."
    refuse(column, values.is_null(), fault="has no rating", remedy=remedy)
    if values.dtype == pl.String:
        values = values.str.strip_chars()
    elif not values.dtype.is_numeric():
        wrong_type(column, "ratings", remedy)
    numbers = values.cast(pl.Float64, strict=False)
    refuse(column, numbers.is_null(), fault="cannot be read as a number", remedy=remedy)
    refuse(column, ~numbers.is_finite(), fault="is NaN or infinite", remedy=remedy)
    return numbers.rename(columns.RATING)


def splits(column: Column) -> pl.Series:
    """Read splits as train, valid or test, whatever the case; DataError for any other value.

    >>> from pathlib import Path
    >>> splits(Column(Path("x.csv"), "part", pl.Series(["training", "dev", "Test"]), text=True)).to_list()
    ['train', 'valid', 'test']
    """
    values, remedy = column.values, "Write train, valid or test."
    if isinstance(values.dtype, pl.Categorical | pl.Enum):
        values = values.cast(pl.String)
    refuse(column, values.is_null(), fault="has no split", remedy=remedy)
    if values.dtype != pl.String:
        wrong_type(column, "splits", remedy)
    names = values.str.strip_chars().str.to_lowercase().replace_strict(_SPLITS, default=None, return_dtype=pl.String)
    refuse(column, names.is_null(), fault="is none of train, valid and test", remedy=remedy)
    return names.rename(columns.SPLIT)


def titles(column: Column) -> pl.Series:
    """Read titles as text, nulls kept; DataError if the column holds lists, records or bytes."""
    if column.values.dtype.is_nested() or column.values.dtype in (pl.Binary, pl.Object):
        wrong_type(column, "titles", "Store titles as text.")
    return column.values.cast(pl.String).rename(columns.TITLE)


def _canonical(text: pl.Series) -> pl.Series | None:
    # "007" and "+7" are names, not 7. A column of "7.0" throughout is how pandas writes integers beside a gap.
    plain = text.str.strip_suffix(".0") if text.str.ends_with(".0").all() else text
    integers = plain.cast(pl.Int64, strict=False)
    return integers if (integers.cast(pl.String) == plain).fill_null(False).all() else None


def _times_of_text(text: pl.Series) -> pl.Series:
    integers = text.cast(pl.Int64, strict=False)
    if integers.null_count() == 0:
        return integers
    floats, moments = text.cast(pl.Float64, strict=False), _iso(text)
    return floats if floats.null_count() < moments.null_count() else moments


def _iso(text: pl.Series) -> pl.Series:
    # Every variant is completed to one form, since a column may mix them; a time without a zone is taken for UTC.
    part = text.str.extract_groups(_ISO).struct.unnest()
    zone = pl.col("zone").fill_null("Z").replace({"Z": "+00:00", "UTC": "+00:00"})
    full = pl.concat_str(
        pl.col("date"),
        pl.lit("T"),
        pl.col("minute").fill_null("00:00"),
        pl.col("second").fill_null(":00"),
        pl.when(zone.str.len_chars() == 3).then(zone + ":00").otherwise(zone),
    )
    moment = full.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", strict=False, time_unit="us")
    return part.select(moment.dt.epoch("us")).to_series()


def wrong_type(column: Column, wanted: str, remedy: str) -> NoReturn:
    """Raise DataError for a column whose type cannot hold what is `wanted`."""
    raise DataError(
        f"{column.path}: column '{column.name}' has the type {column.values.dtype}, which holds no {wanted};"
        f" the first value is {str(column.values[0])[:80]!r} in data row 1",
        remedy,
    )
