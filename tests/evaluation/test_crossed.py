"""Intervals over replicates and users, against the slow twin of three factors."""

import numpy as np
import pytest

from dealrec.evaluation import bootstrap_crossed
from dealrec.evaluation.crossed import crossed_interval

OPTIONS = {"confidence": 0.95, "seed": 0}


def test_it_agrees_with_the_twin_of_three_factors() -> None:
    draw = np.random.default_rng(0)
    differences = 1 + draw.normal(size=(4, 1)) + draw.normal(size=(1, 50)) + 0.1 * draw.normal(size=(4, 50))
    fast = crossed_interval(differences, confidence=0.95, resamples=2_000, seed=0)
    slow = bootstrap_crossed(differences[:, None], confidence=0.95, resamples=20_000, seed=1)
    assert fast.mean == pytest.approx(slow.mean)
    assert fast.low is not None
    assert slow.low is not None
    assert fast.mean - fast.low == pytest.approx(slow.mean - slow.low, rel=0.05)


def test_under_the_null_it_covers_zero_as_often_as_it_says() -> None:
    draw = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        arms = [0.3 * draw.normal(size=(4, 1)) + draw.normal(size=(4, 60)) for _ in range(2)]
        interval = crossed_interval(arms[0] - arms[1], confidence=0.95, resamples=300, seed=0)
        assert interval.low is not None
        assert interval.high is not None
        hits += interval.low <= 0 <= interval.high
    assert hits >= 184  # 190 expected, and it errs towards wide; fewer than 184 come by chance in one of forty


def test_what_there_is_one_of_is_not_covered() -> None:
    values = np.array([[0.0, 1.0, 2.0]])
    assert crossed_interval(values, confidence=0.9, resamples=200, seed=0).covers == ("users",)
    assert crossed_interval(values.T, confidence=0.9, resamples=200, seed=0).covers == ("replicates",)
    alike = crossed_interval(np.ones((3, 4)), confidence=0.9, resamples=200, seed=0)
    assert (alike.mean, alike.low, alike.high) == (1.0, None, None)
    with pytest.raises(ValueError, match="finite differences"):
        crossed_interval(np.array([[np.nan]]), confidence=0.9, resamples=200, seed=0)
