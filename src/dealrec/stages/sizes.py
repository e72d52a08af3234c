"""What a budget counts: samples, the rows of them, or their tokens."""

from collections.abc import Callable
from itertools import count

import polars as pl

from dealrec.columns import LENGTH, ROWS, SAMPLE, SIZE
from dealrec.engine.run_directory import read_table
from dealrec.errors import ConfigError
from dealrec.stages.context import Context
from dealrec.stages.samples import selectable

LENGTHS = "length/scores.parquet"
GUESSES = 8  # after which the number of samples that a budget is enough for is found by halving


class Sizes:
    """What each sample counts for in a budget: as one, as its rows, or as its tokens."""

    def __init__(self, context: Context) -> None:
        self.unit = context.config.select.budget_unit
        self._sizes: pl.DataFrame | None = None
        if self.unit == "tokens":
            self._sizes = read_table(context.input(LENGTHS)).rename({LENGTH: SIZE})
        elif self.unit == "rows":
            samples = pl.concat(selectable(context))
            rows = pl.col(ROWS).list.len().cast(pl.Int64) if ROWS in samples.columns else pl.lit(1, pl.Int64)
            self._sizes = samples.select(SAMPLE, rows.alias(SIZE))

    def total(self, samples: pl.DataFrame) -> int:
        """Of all the samples together."""
        return (
            len(samples) if self._sizes is None else int(self._sizes.join(samples, on=SAMPLE, how="semi")[SIZE].sum())
        )

    def within(
        self, budget: int, table: pl.DataFrame, choose: Callable[[int], pl.DataFrame], *, most: int
    ) -> pl.DataFrame:
        """The selection of as many samples as keep within the budget: one more would not.

        choose: of a number of the table's samples, at most `most`. A method is asked a few times: the number is guessed
        by the mean size of what it has chosen, and halved in the end. Raises ConfigError where not even one keeps
        within it.
        """
        if self._sizes is None:
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
