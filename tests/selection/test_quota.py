"""The best of each group, against a walk spelt out."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dealrec.errors import NonFinite
from dealrec.selection import quota_sample


def walk(scores: list[float], groups: list[int], shares: dict[int, float], budget: int) -> list[int]:
    """The definition: from the top down under caps; unfilled, the caps are raised and the walk begins anew."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    raised = 0
    while True:
        counts: dict[int, int] = {}
        chosen: list[int] = []
        for i in order:
            cap = max(1, math.ceil(budget * shares.get(groups[i], 0.0) - 1e-9)) + raised
            if len(chosen) < budget and counts.get(groups[i], 0) < cap:
                chosen.append(i)
                counts[groups[i]] = counts.get(groups[i], 0) + 1
        if len(chosen) == min(budget, len(scores)):
            return chosen
        raised += 1


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 4)), min_size=1, max_size=30),
    st.dictionaries(st.integers(0, 5), st.floats(0, 1), max_size=4),
    st.integers(0, 35),
)
def test_it_is_the_walk(rows: list[tuple[int, int]], shares: dict[int, float], budget: int) -> None:
    scores, groups = [float(score) for score, _ in rows], [group for _, group in rows]
    chosen = quota_sample(torch.tensor(scores), torch.tensor(groups), shares, budget)
    assert chosen.tolist() == (walk(scores, groups, shares, budget) if budget else [])


def test_validation_says_how_many_and_the_scores_which() -> None:
    scores = torch.tensor([9.0, 8.0, 7.0, 6.0, 5.0, 4.0])
    groups = torch.tensor([1, 1, 1, 2, 2, 3])
    # Budget 4: caps ceil(4 * 0.5) = 2 of group 1, ceil(4 * 0.25) = 1 of group 2, at least 1 of group 3.
    assert quota_sample(scores, groups, {1: 0.5, 2: 0.25}, 4).tolist() == [0, 1, 3, 5]


def test_many_scores_of_many_groups() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, groups = torch.rand(20_000, generator=generator), torch.randint(2_000, (20_000,), generator=generator)
    chosen = quota_sample(scores, groups, {0: 0.5, 7: 0.002}, 5_000)
    assert chosen.tolist() == walk(scores.tolist(), groups.tolist(), {0: 0.5, 7: 0.002}, 5_000)


def test_what_is_no_score_is_refused() -> None:
    with pytest.raises(NonFinite, match="the score is NaN"):
        quota_sample(torch.tensor([1.0, float("nan")]), torch.tensor([0, 0]), {}, 1)
    with pytest.raises(ValueError, match="must be"):
        quota_sample(torch.ones(2), torch.ones(3, dtype=torch.int64), {}, 1)
