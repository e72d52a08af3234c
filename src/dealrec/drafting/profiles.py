"""What the values of a column can be: ids, times, numbers, splits or titles, in figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TypeVar

import polars as pl

from dealrec.data import values
from dealrec.data.readers.tables import Column, Table
from dealrec.errors import DataError

_Values = TypeVar("_Values")
_PROBE = 1000  # values that are tried before the whole column is


@dataclass(frozen=True)
class Profile:
    """A column and what it can be: `column` without its missing values, of which there are `missing`."""

    column: Column
    missing: int

    @property
    def name(self) -> str:
        """Of the column."""
        return self.column.name

    @cached_property
    def rows(self) -> int:
        """Values that are there."""
        return len(self.column.values)

    @cached_property
    def ids(self) -> pl.Series | None:
        """As ids in the form of text; None if these are no ids."""
        ids = None if self.column.values.dtype == pl.Boolean else self._read_as(values.ids)
        return ids.values.cast(pl.String) if ids else None

    @cached_property
    def unique(self) -> pl.Series:
        """Each id once, in the order of the file; empty if these are no ids."""
        return pl.Series([], dtype=pl.String) if self.ids is None else self.ids.unique(maintain_order=True)

    @cached_property
    def distinct(self) -> int:
        """How many values there are."""
        return int(self.column.values.n_unique()) if self.ids is None else len(self.unique)

    @cached_property
    def numbers(self) -> pl.Series | None:
        """As numbers, if all are finite ones."""
        return self._read_as(values.ratings)

    @cached_property
    def times(self) -> pl.Series | None:
        """As `values.timestamps` reads them; None if it does not."""
        return self._read_as(values.timestamps)

    @cached_property
    def moments(self) -> tuple[datetime, datetime] | None:
        """The first and the last, if these are times between 1980 and 2100 in one of the units since 1970."""
        if self.times is None:
            return None
        low, high = float(self.times.min()), float(self.times.max())  # type: ignore[arg-type]
        for per in values.PER_SECOND.values():
            if values.EARLIEST * per <= low <= high <= values.LATEST * per:
                return datetime.fromtimestamp(low / per, UTC), datetime.fromtimestamp(high / per, UTC)
        return None

    @cached_property
    def splits(self) -> dict[str, int] | None:
        """The rows of train, valid and test, if every value is one of them and train and test are there."""
        splits = None if self.missing else self._read_as(values.splits)
        counts = {} if splits is None else dict(splits.value_counts().rows())
        return counts if {values.TRAIN, values.TEST} <= set(counts) else None

    @cached_property
    def length(self) -> float:
        """Mean number of characters of text; 0 for what is none."""
        text = self.column.values
        return float(text.str.len_chars().mean()) if text.dtype == pl.String else 0.0  # type: ignore[arg-type]

    @cached_property
    def wordy(self) -> float:
        """Share of the first values with two letters in a row, or a letter before a space: few codes have them."""
        return self.share(r"\p{L}{2}|\p{L} ")

    @property
    def example(self) -> str:
        """The first value."""
        return str(self.column.values[0])[:40]

    def share(self, pattern: str) -> float:
        """Share of the first values that the pattern is found in; 0 for what is no text."""
        text = self.column.values.head(_PROBE)
        return float(text.str.contains(pattern).mean()) if text.dtype == pl.String else 0.0  # type: ignore[arg-type]

    def _read_as(self, reader: Callable[[Column], _Values]) -> _Values | None:
        try:
            reader(replace(self.column, values=self.column.values.head(_PROBE)))
            return reader(self.column)
        except DataError:
            return None


def profiles(table: Table) -> dict[str, Profile]:
    """By name, one for each column with values."""
    columns = {}
    for series in table.frame.get_columns():
        text = series.cast(pl.String) if isinstance(series.dtype, pl.Categorical | pl.Enum) else series
        absent = values.missing(text)
        column = Column(table.path, series.name, text.filter(~absent), table.text, table.separators.get(series.name))
        columns[series.name] = Profile(column, int(absent.sum()))
    return {name: profile for name, profile in columns.items() if profile.rows}
