"""Budgets in rows and tokens: as many samples as keep within them."""

import numpy as np
import polars as pl
import pytest

from dealrec.columns import SAMPLE, SIZE
from dealrec.errors import ConfigError
from dealrec.stages.sizes import Sizes


def sizes_of(sizes: list[int]) -> tuple[Sizes, pl.DataFrame]:
    """Sizes of samples 0, 1, ... in tokens."""
    table = pl.DataFrame({SAMPLE: range(len(sizes)), SIZE: sizes})
    return Sizes("tokens", table), table.select(SAMPLE)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0])
def test_one_sample_more_would_exceed_the_budget(seed: int, spread: float) -> None:
    """The selections are nested, so that the right number can be counted up to."""
    draw = np.random.default_rng(seed)
    sizes = (20 * np.exp(spread * draw.standard_normal(2000))).astype(int) + 1
    order = np.argsort(sizes)[::-1] if seed == 0 else draw.permutation(len(sizes))  # seed 0: the largest come first
    made, table = sizes_of(sizes.tolist())
    asked: list[int] = []

    def choose(number: int) -> pl.DataFrame:
        asked.append(number)
        return pl.DataFrame({SAMPLE: order[:number]})

    for share in (0.01, 0.3, 0.99):
        asked.clear()
        budget = max(int(share * sizes.sum()), int(sizes[order[0]]))
        chosen = made.within(budget, table, choose, most=len(sizes))
        number = int((np.cumsum(sizes[order]) <= budget).sum())
        assert chosen[SAMPLE].to_list() == order[:number].tolist()
        assert len(asked) <= 22


def test_a_selection_that_is_no_longer_nested_keeps_within_the_budget_too() -> None:
    made, table = sizes_of([1, 100] * 50)
    rows = {number: pl.DataFrame({SAMPLE: range(number % 2, number % 2 + number)}) for number in range(1, 100)}
    chosen = made.within(2000, table, rows.__getitem__, most=99)
    assert made.total(chosen) <= 2000
    assert made.total(rows[len(chosen) + 1]) > 2000


def test_a_budget_for_all_takes_all() -> None:
    made, table = sizes_of([3, 4])
    assert len(made.within(7, table, table.head, most=2)) == 2
    assert made.within(6, table, table.head, most=2)[SAMPLE].to_list() == [0]


def test_a_budget_below_any_sample_is_refused() -> None:
    made, table = sizes_of([3, 4])
    with pytest.raises(ConfigError, match="2 tokens, and a single sample has more"):
        made.within(2, table, table.head, most=2)


def test_no_more_are_asked_for_than_a_method_can_choose() -> None:
    """Such as dealrec, which has dropped the hardest."""
    made, table = sizes_of([1] * 50 + [3] * 50)
    asked: list[int] = []

    def choose(number: int) -> pl.DataFrame:
        asked.append(number)
        return table[50 : 50 + number]

    assert len(made.within(110, table, choose, most=50)) == 36
    assert len(made.within(150, table, choose, most=50)) == 50
    assert max(asked) == 50
