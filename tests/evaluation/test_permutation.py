"""Permutation tests against all permutations, scipy, and the level they promise."""

import tracemalloc
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from scipy.stats import permutation_test

from dealrec.evaluation import PermutationTest, label_test, sign_flip_test


def by_hand(differences: Any) -> float:
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in product([1, -1], repeat=len(differences))
    ]
    return float(np.mean([value >= abs(sum(differences)) - 1e-9 for value in sums]))


@pytest.mark.parametrize(
    "differences",
    [[1.0], [0.5, 0.5, 0.5], [3.0, -1.0, 2.0, 0.5, 0.0, -0.1], [0.1, 0.2, 0.3, -0.1, -0.2, 0.3], [1.0, -1.0]],
    ids=str,
)
def test_few_users_are_counted_out(differences: list[float]) -> None:
    """With ties: sums that differ by rounding only must count as equal."""
    found = sign_flip_test(np.array(differences), resamples=10_000, seed=0)
    assert found.exact
    assert found.p == pytest.approx(by_hand(differences))
    assert found.least == 2 / 2 ** np.count_nonzero(differences)


def test_exact_values_are_scipys() -> None:
    draw = np.random.default_rng(0)
    for _ in range(5):
        values = draw.normal(0.4, 1.0, 9)
        theirs = permutation_test((values,), np.mean, permutation_type="samples", n_resamples=10**6)
        assert sign_flip_test(values, resamples=512, seed=0).p == pytest.approx(theirs.pvalue)


def test_many_users_are_sampled_with_the_one_seen_among_them() -> None:
    values = np.random.default_rng(1).normal(0.4, 1.0, 14)
    exact = sign_flip_test(values, resamples=2**14, seed=0)
    drawn = sign_flip_test(values, resamples=2**14 - 1, seed=0)
    assert exact.exact
    assert not drawn.exact
    assert drawn.p == pytest.approx(exact.p, abs=4 * (exact.p / 2**14) ** 0.5)  # four standard errors
    assert drawn == sign_flip_test(values, resamples=2**14 - 1, seed=0)
    assert sign_flip_test(np.ones(100), resamples=99, seed=0) == PermutationTest(1 / 100, exact=False, least=1 / 100)


def test_users_without_a_difference_change_nothing() -> None:
    assert sign_flip_test(np.array([1.0, 0, 2, 0, 0]), resamples=8, seed=0).p == pytest.approx(by_hand([1.0, 2.0]))
    assert sign_flip_test(np.zeros(3), resamples=8, seed=0) == PermutationTest(1.0, exact=True, least=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("users", [7, 40])
def test_without_a_difference_the_tests_level_is_kept(users: int) -> None:
    draw = np.random.default_rng(2)
    trials = 600
    low = sum(sign_flip_test(draw.normal(size=users), resamples=199, seed=i).p <= 0.1 for i in range(trials))
    assert 0.07 <= low / trials <= 0.13  # 0.1 +- 2.5 standard errors


def test_labels_of_runs_are_counted_out() -> None:
    ours, theirs = np.array([3.0, 2.5]), np.array([1.0, 2.0, 2.7])
    values, seen = [*ours, *theirs], ours.mean() - theirs.mean()
    gaps = []
    for chosen in combinations(range(5), 2):
        left = [values[i] for i in chosen]
        gaps.append(np.mean(left) - (sum(values) - sum(left)) / 3)
    sides = np.mean([g >= seen - 1e-9 for g in gaps]), np.mean([g <= seen + 1e-9 for g in gaps])
    found = label_test(ours, theirs, resamples=100, seed=0)
    assert found == PermutationTest(pytest.approx(2 * min(sides)), exact=True, least=2 / 10)  # type: ignore[arg-type]


def test_exact_values_of_labels_are_scipys() -> None:
    draw = np.random.default_rng(4)
    for k, m in [(2, 5), (3, 3), (5, 2)]:
        runs = draw.normal(0.5, 1.0, k), draw.normal(size=m)
        theirs = permutation_test(runs, lambda x, y: x.mean() - y.mean(), vectorized=False, n_resamples=10**6)
        assert label_test(*runs, resamples=100, seed=0).p == pytest.approx(theirs.pvalue)


def test_one_selected_arm_against_random_ones_is_its_rank() -> None:
    random = np.arange(19.0)
    assert label_test(np.array([99.0]), random, resamples=100, seed=0).p == pytest.approx(2 / 20)
    assert label_test(np.array([16.5]), random, resamples=100, seed=0).p == pytest.approx(2 * 3 / 20)
    assert label_test(np.array([9.0]), random, resamples=100, seed=0).p == 1.0


def test_many_runs_are_sampled() -> None:
    draw = np.random.default_rng(3)
    found = label_test(draw.normal(1.0, 1.0, 10), draw.normal(size=10), resamples=199, seed=0)
    assert not found.exact
    assert found.p >= found.least == 2 / 200
    assert round(found.p * 200, 9) % 1 == 0


def test_runs_that_differ_by_rounding_alone_are_equal() -> None:
    alone = label_test(np.array([0.1 + 0.2]), np.array([0.3, 0.3, 0.2]), resamples=100, seed=0)
    assert alone.p == 1.0  # 0.3 is the highest of four, and of three of them: 2 * min(3/4, 4/4)
    several = label_test(np.array([0.1 + 0.2, 0.3]), np.array([0.3, 0.2]), resamples=100, seed=0)
    assert several.p == 1.0  # three of six choices are as high, and six as low


def test_many_users_are_not_held_at_once() -> None:
    values = np.random.default_rng(5).normal(size=300_000)
    tracemalloc.start()
    sign_flip_test(values, resamples=100, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150 * 2**20  # all flips at once: 400 MiB


def test_nothing_and_nan_are_refused() -> None:
    for values in (np.array([]), np.array([1.0, np.nan])):
        with pytest.raises(ValueError, match="finite"):
            sign_flip_test(values, resamples=10, seed=0)
        with pytest.raises(ValueError, match="finite"):
            label_test(values, np.ones(2), resamples=10, seed=0)
