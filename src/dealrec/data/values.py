"""What the values of a column mean: ids, times, ratings, splits and titles, each checked to the last row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import polars as pl

from dealrec import columns
from dealrec.data.readers.tables import Column, refuse, shown
from dealrec.errors import DataError

TRAIN, VALID, TEST = "train", "valid", "test"

_SPLITS = {TRAIN: TRAIN, "training": TRAIN, VALID: VALID, "validation": VALID, "val": VALID, "dev": VALID, TEST: TEST}
_ISO = (
    r"^(?<date>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?<minute>\d{2}:\d{2})(?<second>:\d{2}(?:\.\d{1,9})?)? ?(?<zone>Z|UTC|[+-]\d{2}(?::?\d{2})?)?)?$"
)
# How programs spell that there is no value: pandas, R, SQL, JSON, spreadsheets.
PLACEHOLDERS = (
    *("NA", "N/A", "n/a", "na", "<NA>", "#N/A", "#NA", "NaN", "nan", "-nan", "-NaN", "NaT", "NULL", "Null", "null"),
    *("(null)", "None", "none", "\\N", "undefined"),
)
_SCIENTIFIC = r"^\s*\d(?:[.,]\d+)?[eE]\+\d+\s*$"
_EXACT = 2**53  # Beyond it, a float no longer holds every integer, and two ids may have become one.
EARLIEST, LATEST = 315_532_800, 4_102_444_800  # 1980 and 2100 in seconds: numbers between are taken for times
_YEAR_2, _YEAR_9999 = -62_104_060_800 * 10**6, 253_370_764_800 * 10**6 - 1  # microseconds
PER_SECOND = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
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
    refuse(column, missing(values), fault="has no id", remedy="Fill in the ids, or remove these rows.")
    if values.dtype == pl.String:
        refuse(
            column,
            values.str.contains(_SCIENTIFIC),
            fault="has ids that a spreadsheet has rounded",
            remedy="Their last digits are lost: take the ids from where they came from, as text.",
        )
        return Ids(column, values, _canonical(values) if column.text else None)
    if values.dtype.is_float() or values.dtype.is_decimal():
        fraction = (values != values.floor()) | (values.abs() > _EXACT)
        refuse(column, fraction, fault="has ids that are no whole numbers", remedy="Store ids as integers or text.")
    elif not values.dtype.is_integer():
        wrong_type(column, "ids", "Store ids as integers or text.")
    integers = values.cast(pl.Int64, strict=False)
    refuse(column, integers.is_null(), fault="has ids beyond 64 bits", remedy="Store these ids as text.")
    return Ids(column, integers.cast(pl.String), integers)


def missing(values: pl.Series) -> pl.Series:
    """Where there is no value: null, NaN, blank text, and text that spells it out, such as NA, NULL, None or \\N."""
    absent = values.is_null()
    if values.dtype == pl.String:
        text = values.str.strip_chars()
        return absent | text.is_in(["", *PLACEHOLDERS]).fill_null(True)
    return absent | values.is_nan().fill_null(True) if values.dtype.is_float() else absent


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


def timestamps(column: Column, *, warn: Callable[[str], None] = lambda _: None) -> pl.Series:
    """Read times: Int64 or Float64 as given; dates and ISO 8601 text as Int64 microseconds since 1970 (UTC).

    Raises DataError for a missing, infinite or unreadable time, for times of two units in one column, and for times
    before 1980 or after 2100 among others, by which missing ones are often marked; warns of such dates.
    """
    values, remedy = column.values, "Fill in the times, or remove these rows."
    refuse(column, values.is_null(), fault="has no time", remedy=remedy)
    is_date = False
    if isinstance(values.dtype, pl.Date | pl.Datetime):
        times, is_date = values.dt.epoch("us"), True
    elif values.dtype.is_integer():
        times = values.cast(pl.Int64, strict=False)
    elif values.dtype.is_float() or values.dtype.is_decimal():
        times = values.cast(pl.Float64)
    elif values.dtype == pl.String:
        times, is_date = _times_of_text(values.str.strip_chars())
    else:
        wrong_type(column, "times", _TIMES)
    refuse(column, times.is_null() & missing(values), fault="has no time", remedy=remedy)
    refuse(column, times.is_null(), fault="cannot be read as a time", remedy=_TIMES)
    if times.dtype == pl.Float64:
        refuse(column, ~times.is_finite(), fault="is NaN or infinite", remedy=remedy)
    if is_date:
        _warn_of_markers(column, times, warn)
    else:
        _refuse_two_units(column, times)
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
    refuse(column, numbers.is_null() & missing(values), fault="has no rating", remedy=remedy)
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


def _refuse_two_units(column: Column, times: pl.Series) -> None:
    """Raise DataError where all times are from 1980 to 2100 in one of the units, but not all in the same one.

    Beside them those before 1970, such as 0 and -1, and after 2100 mark missing times; beside a large majority those
    that are long before 1980 too, such as 19991231 and the 1970 of another time zone.
    """
    within = {unit: times.is_between(EARLIEST * per, LATEST * per) for unit, per in PER_SECOND.items()}
    main = max(within, key=lambda unit: int(within[unit].sum()))
    plausible = pl.DataFrame(within).select(pl.any_horizontal(pl.all())).to_series()
    long_before = EARLIEST * PER_SECOND[main] // 10 if 4 * plausible.sum() >= 3 * len(times) else 0
    markers = ~plausible & ((times <= long_before) | (times > LATEST * PER_SECOND[main]))
    if 2 * plausible.sum() < len(times) or not (plausible | markers).all():
        return
    fault = f"is in another unit of time than the {main} of the other rows"
    refuse(column, plausible & ~within[main], fault=fault, remedy="Bring all times to one unit.")
    fault = "has a time before 1980 or after 2100, which may mark a missing one,"
    refuse(column, markers, fault=fault, remedy="Fill in the times, or remove these rows.")


def _warn_of_markers(column: Column, times: pl.Series, warn: Callable[[str], None]) -> None:
    markers = (times == 0) | ~times.is_between(_YEAR_2, _YEAR_9999)
    if (count := int(markers.sum())) and count < len(times):
        warn(
            f"{column.path}: column '{column.name}' holds the first instant of 1970, the year 1 or 9999 in {count:,} of"
            f" {len(times):,} rows, which may mark missing times"
        )


def _times_of_text(text: pl.Series) -> tuple[pl.Series, bool]:
    """The times, and whether they are dates."""
    integers = text.cast(pl.Int64, strict=False)
    if integers.null_count() == 0:
        return integers, False
    floats, moments = text.cast(pl.Float64, strict=False), _iso(text)
    return (floats, False) if floats.null_count() < moments.null_count() else (moments, True)


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


def wrong_type(column: Column, meaning: str, remedy: str) -> NoReturn:
    """Raise DataError for a column whose type cannot hold values of that meaning."""
    raise DataError(
        f"{column.path}: column '{column.name}' has the type {column.values.dtype}, which holds no {meaning};"
        f" the first value is {shown(column.values, 0)} in data row 1",
        remedy,
    )
