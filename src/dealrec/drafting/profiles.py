"""What the values of a column can be: ids, times, numbers, splits or titles, in figures."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal

import polars as pl

from dealrec.data import values
from dealrec.data.tables import Column, Table
from dealrec.errors import DataError

Unit = Literal["s", "ms", "us", "ns"]
_PER_SECOND: dict[Unit, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_EARLIEST, _LATEST = 315_532_800, 4_102_444_800  # 1980 and 2100: numbers between are taken for times
_PROBE = 1000  # values that are tried before the whole column is


@dataclass(frozen=True)
class Profile:
    """A column and what it can be. Missing values are left out of all figures but `missing`."""

    column: Column
    missing: int

    @property
    def name(self) -> str:
        """Of the column."""
        return self.column.name

    @cached_property
    def present(self) -> Column:
        """The values that are there; of text, those that are not blank."""
        series = self.column.values
        if isinstance(series.dtype, pl.Categorical | pl.Enum):
            series = series.cast(pl.String)
        return Column(self.column.path, self.name, series.filter(~_missing(series)), self.column.text)

    @cached_property
    def rows(self) -> int:
        """Values that are there."""
        return len(self.present.values)

    @cached_property
    def ids(self) -> pl.Series | None:
        """As ids in the form of text; None if these are no ids."""
        if not self.rows or self.present.values.dtype == pl.Boolean:
            return None
        try:
            found = values.ids(self.present)
        except DataError:
            return None
        return found.values.cast(pl.String) if found.integers is not None else found.strings

    @cached_property
    def unique(self) -> pl.Series:
        """Each id once, in the order of the file; empty if these are no ids."""
        return pl.Series([], dtype=pl.String) if self.ids is None else self.ids.unique(maintain_order=True)

    @cached_property
    def members(self) -> frozenset[str]:
        """The ids, to look others up in."""
        return frozenset(self.unique)

    @cached_property
    def distinct(self) -> int:
        """How many values there are."""
        return int(self.present.values.n_unique()) if self.ids is None else len(self.unique)

    @cached_property
    def numbers(self) -> pl.Series | None:
        """As numbers, if all are finite ones."""
        series = self.present.values
        if not self.rows or not (series.dtype == pl.String or series.dtype.is_numeric()):
            return None
        found = series.str.strip_chars() if series.dtype == pl.String else series
        for part in (found.head(_PROBE), found):
            parsed = part.cast(pl.Float64, strict=False)
            if parsed.null_count() or not parsed.is_finite().all():
                return None
        return parsed

    @cached_property
    def times(self) -> pl.Series | None:
        """As `values.timestamps` reads them; None if it does not."""
        if not self.rows:
            return None
        column = self.present
        try:
            values.timestamps(Column(column.path, column.name, column.values.head(_PROBE), column.text))
            return values.timestamps(column)
        except DataError:
            return None

    @cached_property
    def unit(self) -> Unit | None:
        """The unit since 1970 in which these are times between 1980 and 2100, if one."""
        if self.times is None:
            return None
        low, high = float(self.times.min()), float(self.times.max())  # type: ignore[arg-type]
        fits = (unit for unit, per in _PER_SECOND.items() if _EARLIEST * per <= low <= high <= _LATEST * per)
        return next(fits, None)

    @cached_property
    def moments(self) -> tuple[datetime, datetime] | None:
        """The first and the last moment, if these are times."""
        if self.times is None or self.unit is None:
            return None
        per = _PER_SECOND[self.unit]
        low, high = (float(end) / per for end in (self.times.min(), self.times.max()))  # type: ignore[arg-type]
        return datetime.fromtimestamp(low, UTC), datetime.fromtimestamp(high, UTC)

    @cached_property
    def splits(self) -> dict[str, int] | None:
        """The rows of train, valid and test, if every value is one of them and train and test are there."""
        if not self.rows or self.missing or self.present.values.dtype != pl.String:
            return None
        column = self.present
        try:
            values.splits(Column(column.path, column.name, column.values.head(_PROBE), column.text))
            counts = dict(values.splits(column).value_counts().rows())
        except DataError:
            return None
        return counts if {values.TRAIN, values.TEST} <= set(counts) else None

    @cached_property
    def length(self) -> float:
        """Mean number of characters of text; 0 for what is none."""
        return float(self.present.values.str.len_chars().mean()) if self._is_text else 0.0  # type: ignore[arg-type]

    @cached_property
    def wordy(self) -> float:
        """Share of the first values with two letters in a row, or a letter before a space: few codes have them."""
        if not self._is_text:
            return 0.0
        head = self.present.values.head(_PROBE)
        return float(head.str.contains(r"\p{L}{2}|\p{L} ").mean())  # type: ignore[arg-type]

    @property
    def example(self) -> str:
        """The first value."""
        return str(self.present.values[0])[:40] if self.rows else ""

    @property
    def _is_text(self) -> bool:
        return bool(self.rows) and self.present.values.dtype == pl.String

    def described(self) -> str:
        """One phrase for messages, such as `sku (1,200 distinct, e.g. 'A-17')`."""
        if not self.rows:
            return f"{self.name} (empty)"
        return f"{self.name} ({self.distinct:,} distinct, e.g. {self.example!r})"


def profiles(table: Table) -> list[Profile]:
    """One for each column."""
    return [
        Profile(
            Column(table.path, series.name, series, table.text, table.separators.get(series.name)),
            int(_missing(series).sum()),
        )
        for series in table.frame.get_columns()
    ]


def _missing(series: pl.Series) -> pl.Series:
    missing = series.is_null()
    if series.dtype == pl.String:
        return missing | (series.str.strip_chars() == "").fill_null(True)
    return missing | series.is_nan().fill_null(True) if series.dtype.is_float() else missing
