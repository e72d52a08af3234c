"""Stratified sampling against a plain-Python twin of Algorithm 2, and its promises on nasty scores."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dealrec.errors import NonFinite
from dealrec.selection import assign_strata, budget_count, coverage_sample, stratum_edges, without_hardest

ORDINARY = st.lists(st.floats(-1000, 1000), min_size=1, max_size=80)
TINY = st.sampled_from([0.0, -0.0, 5e-324, 1e-300, -1e-300, 1e-308, 3e-310])
HUGE = st.sampled_from([1e308, -1e308, 1.7e308, -1.7e308, 1.0, 0.0, 2.0**60])
CLOSE = st.sampled_from([1.0, math.nextafter(1.0, 2), math.nextafter(1.0, 0), 1.0 + 1e-15, 1.0 + 1e-12])
NASTY = st.one_of(
    *[st.lists(kind, min_size=1, max_size=30) for kind in (TINY, HUGE, CLOSE)],
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30),
)


def tensor(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def algorithm_2(sizes: list[int], budget: int) -> list[int]:
    """How many samples each of the non-empty strata gives, by the text of the paper."""
    given_by: dict[int, int] = {}
    left = budget
    remaining = {stratum: size for stratum, size in enumerate(sizes) if size}
    share = math.floor(left / len(remaining))
    while remaining:
        smallest = min(remaining, key=lambda stratum: (remaining[stratum], stratum))
        size = remaining.pop(smallest)
        given_by[smallest] = min(share, size)
        left -= given_by[smallest]
        if remaining:
            share = math.floor(left / len(remaining))
    return [given_by.get(stratum, 0) for stratum in range(len(sizes))]


def sizes_of(scores: Tensor, *, strata: int) -> list[int]:
    return torch.bincount(assign_strata(scores, strata=strata), minlength=strata).tolist()


@pytest.mark.slow
@settings(deadline=None, derandomize=True)
@given(values=ORDINARY, budget=st.integers(0, 90), strata=st.integers(1, 12), seed=st.integers(0, 3))
def test_each_stratum_gives_what_the_algorithm_says(values: list[float], budget: int, strata: int, seed: int) -> None:
    scores = tensor(values)
    drawn = coverage_sample(scores, budget, strata=strata, seed=seed)
    got = torch.bincount(assign_strata(scores, strata=strata)[drawn], minlength=strata).tolist()
    sizes = sizes_of(scores, strata=strata)
    expected = algorithm_2(sizes, min(budget, len(scores)))
    # Among strata of one size chance decides which is visited first.
    assert sorted(zip(sizes, got, strict=True)) == sorted(zip(sizes, expected, strict=True))


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=300)
@given(values=st.one_of(ORDINARY, NASTY), budget=st.integers(0, 90), strata=st.integers(1, 60))
def test_the_budget_is_met_exactly_without_repeats(values: list[float], budget: int, strata: int) -> None:
    drawn = coverage_sample(tensor(values), budget, strata=strata)
    assert drawn.dtype == torch.int64
    assert len(drawn) == min(budget, len(values))
    assert len(set(drawn.tolist())) == len(drawn)
    assert drawn.tolist() == sorted(drawn.tolist())
    assert all(0 <= i < len(values) for i in drawn.tolist())


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=400)
@given(values=st.one_of(ORDINARY, NASTY), strata=st.integers(1, 60))
def test_strata_stay_in_range_and_follow_the_scores(values: list[float], strata: int) -> None:
    scores = tensor(values)
    assigned = assign_strata(scores, strata=strata)
    assert int(assigned.min()) >= 0
    assert int(assigned.max()) < strata
    in_order = assigned[scores.argsort()]
    assert bool((in_order.diff() >= 0).all())
    if len(set(values)) > 1:
        assert int(assigned[scores.argmax()]) == strata - 1
    else:
        assert assigned.tolist() == [0] * len(values)


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=400)
@given(values=st.one_of(ORDINARY, NASTY), strata=st.integers(1, 60))
def test_strata_are_the_intervals_between_the_edges(values: list[float], strata: int) -> None:
    scores = tensor(values)
    edges = stratum_edges(scores, strata=strata)
    assert edges.shape == (strata + 1,)
    assert bool((edges.diff() >= 0).all())
    assert float(edges[0]) == min(values)
    if len(set(values)) == 1:
        return
    assert float(edges[-1]) == max(values)
    for value, stratum in zip(values, assign_strata(scores, strata=strata).tolist(), strict=True):
        assert float(edges[stratum]) <= value
        assert value < float(edges[stratum + 1]) or stratum == strata - 1


def test_strata_by_hand() -> None:
    scores = tensor([0.0, 0.24, 0.25, 0.5, 0.74, 0.75, 0.99, 1.0])
    assert assign_strata(scores, strata=4).tolist() == [0, 0, 1, 2, 2, 3, 3, 3]
    assert stratum_edges(scores, strata=4).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_strata_have_equal_width_not_equal_size() -> None:
    scores = torch.cat([torch.linspace(0, 0.1, 90), torch.tensor([0.95, 1.0])])
    assert sizes_of(scores, strata=2) == [90, 2]


@pytest.mark.parametrize("value", [0.0, -3.5, 1e17, -1e300, 1.7976931348623157e308])
def test_equal_scores_share_stratum_zero(value: float) -> None:
    assert assign_strata(tensor([value] * 4), strata=50).tolist() == [0] * 4
    assert len(coverage_sample(tensor([value] * 4), 3)) == 3


def test_small_strata_are_kept_whole() -> None:
    scores = torch.cat([torch.linspace(0, 0.09, 100), torch.tensor([0.55, 0.56, 1.0])])  # sizes 100, 2, 1
    drawn = coverage_sample(scores, 12, strata=10).tolist()
    assert {100, 101, 102} <= set(drawn)
    assert len([i for i in drawn if i < 100]) == 12 - 3


def test_a_share_of_the_budget_by_hand() -> None:
    # Sizes 1, 3, 6 and a budget of 7: floor(7/3) -> 1; floor(6/2) -> 3; floor(3/1) -> 3.
    scores = tensor([0.0] * 6 + [0.5] * 3 + [1.0])
    drawn = coverage_sample(scores, 7, strata=3)
    assert Counter(assign_strata(scores, strata=3)[drawn].tolist()) == {0: 3, 1: 3, 2: 1}


def test_fewer_samples_than_strata() -> None:
    assert coverage_sample(tensor([0.1, 0.9, 0.5]), 3, strata=50).tolist() == [0, 1, 2]
    assert len(coverage_sample(tensor([0.1, 0.9, 0.5]), 2, strata=50)) == 2


def test_a_budget_below_the_number_of_strata_is_met() -> None:
    assert len(coverage_sample(torch.linspace(0, 1, 100), 7, strata=50)) == 7


def test_nothing_asked_or_nothing_there() -> None:
    assert coverage_sample(torch.linspace(0, 1, 5), 0).tolist() == []
    assert coverage_sample(torch.zeros(0), 5).tolist() == []
    assert coverage_sample(torch.zeros(0), 0.5).tolist() == []


def test_the_seed_decides_the_draw() -> None:
    scores = torch.rand(500, generator=torch.Generator().manual_seed(0))
    before = torch.random.get_rng_state()
    assert torch.equal(coverage_sample(scores, 60, seed=1), coverage_sample(scores, 60, seed=1))
    assert not torch.equal(coverage_sample(scores, 60, seed=1), coverage_sample(scores, 60, seed=2))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_member_of_a_stratum_is_drawn_about_as_often() -> None:
    scores = tensor([0.0] * 10 + [1.0] * 2)
    counts = Counter(i for seed in range(300) for i in coverage_sample(scores, 5, strata=2, seed=seed).tolist())
    assert counts[10] == counts[11] == 300
    assert all(60 <= counts[i] <= 120 for i in range(10))  # 300 * 3 / 10 = 90, five deviations either side


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.permutations(list(range(30))), st.integers(0, 30))
def test_the_order_of_samples_leaves_the_counts_of_strata(order: list[int], budget: int) -> None:
    scores = torch.rand(30, generator=torch.Generator().manual_seed(1)) ** 3
    shuffled = scores[order]

    def counts(values: Tensor) -> list[int]:
        drawn = coverage_sample(values, budget, strata=6)
        return torch.bincount(assign_strata(values, strata=6)[drawn], minlength=6).tolist()

    assert counts(shuffled) == counts(scores)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_an_error(bad: float) -> None:
    with pytest.raises(NonFinite, match="positions 1 "):
        coverage_sample(tensor([0.0, bad, 1.0]), 2)


def test_budgets() -> None:
    assert budget_count(0.29, 100) == 29  # 0.29 * 100 is 28.999999999999996
    assert budget_count(0.5, 5) == 2
    assert budget_count(1.0, 7) == 7
    assert budget_count(1e-9, 7) == 1
    assert budget_count(0.0, 7) == budget_count(0, 7) == 0
    assert budget_count(8, 7) == 7
    assert len(coverage_sample(torch.linspace(0, 1, 200), 0.1)) == 20
    with pytest.raises(ValueError, match="negative"):
        budget_count(-1, 7)


def test_no_strata_is_an_error() -> None:
    with pytest.raises(ValueError, match="strata"):
        coverage_sample(torch.linspace(0, 1, 5), 2, strata=0)


def test_a_budget_below_the_number_of_strata_does_not_go_to_the_highest_scores_alone() -> None:
    scores = torch.arange(16.0)  # a stratum each
    picked = [coverage_sample(scores, 8, strata=16, seed=seed) for seed in range(200)]
    assert all(len(indices) == 8 for indices in picked)
    mean = float(torch.cat(picked).double().mean())
    assert abs(mean - 7.5) < 0.5  # the highest eight alone would have 11.5


def test_hard_pruning_drops_the_share_of_the_highest_and_keeps_the_order() -> None:
    scores = torch.tensor([3.0, 9.0, 1.0, 9.0, 5.0, 2.0, 7.0, 8.0, 0.0, 4.0])
    assert without_hardest(scores, share=0.3).tolist() == [0, 2, 4, 5, 6, 8, 9]  # both nines and the eight are gone
    assert without_hardest(scores, share=0.1).tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]  # of equal ones the later goes
    assert without_hardest(scores, share=0.0).tolist() == list(range(10))
    assert without_hardest(scores, share=0.09).tolist() == list(range(10))
