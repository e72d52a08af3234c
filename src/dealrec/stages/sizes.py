"""What a budget counts: samples, the rows of them, or their tokens."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import polars as pl

from dealrec.columns import LENGTH, ROWS, SAMPLE, SIZE
from dealrec.engine.run_directory import read_table
from dealrec.errors import ConfigError
from dealrec.stages.context import Context

LENGTHS = "length/scores.parquet"
GUESSES = 8  # after which the number of samples that a budget is enough for is found by halving


@dataclass(frozen=True)
class Sizes:
    """What each sample counts for in a budget: as one, as its rows, or as its tokens.

    table: sample_id, size; None: each counts as one.
    """

    unit: str
    table: pl.DataFrame | None

    @classmethod
    def of(cls, context: Context, samples: pl.DataFrame) -> "Sizes":
        """samples: of training and validation, as `data_signals` has them."""
        unit, table = context.config.select.budget_unit, None
        if unit == "tokens":
            table = read_table(context.input(LENGTHS)).rename({LENGTH: SIZE})
        elif unit == "rows" and ROWS in samples.columns:
            table = samples.select(SAMPLE, pl.col(ROWS).list.len().cast(pl.Int64).alias(SIZE))
        return cls(unit, table)

    def total(self, samples: pl.DataFrame) -> int:
        """Of all the samples together."""
        if self.table is None:
            return len(samples)
        return int(self.table.join(samples, on=SAMPLE, how="semi")[SIZE].sum())

    def within(
        self, budget: int, table: pl.DataFrame, choose: Callable[[int], pl.DataFrame], *, most: int
    ) -> pl.DataFrame:
        """The selection of as many samples as keep within the budget: one more would not.

        choose: of a number of the table's samples, at most `most`. A method is asked a few times: the number is guessed
        by the mean size of what it has chosen, and halved in the end. Raises ConfigError where not even one keeps
        within it.
        """
        if self.table is None:
            return choose(min(budget, len(table)))
        fits, exceeds, chosen = 0, most + 1, None
        guess = len(table) * budget / self.total(table)
        for tries in count():
            if exceeds - fits <= 1:
                break
            number = (fits + exceeds) // 2 if tries > GUESSES else min(max(round(guess), fits + 1), exceeds - 1)
            rows = choose(number)
            size = self.total(rows)
            if size <= budget:
                fits, chosen = number, rows
            else:
                exceeds = number
            guess = number + (budget - size) * number / size
        if chosen is None:
            raise ConfigError(
                f"The budget means {budget:,} {self.unit}, and a single sample has more", "Raise the budget."
            )
        return chosen
