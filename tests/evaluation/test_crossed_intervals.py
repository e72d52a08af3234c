"""Intervals over seeds and users: their variance in closed form, and how often they cover."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

from dealrec.evaluation import Interval, bootstrap_crossed, bootstrap_mean

SETTINGS: dict[str, Any] = {"confidence": 0.95, "resamples": 300, "seed": 0}


def crossed(draw: np.random.Generator, shape: tuple[int, int, int], *, spreads: tuple[float, float, float]) -> Any:
    """Differences around 0: an effect of each selection seed, training seed and user, and noise of the cells."""
    selection, training, users = shape
    effects = [
        draw.normal(0, s, size)
        for s, size in zip(spreads, [(selection, 1, 1), (1, training, 1), (1, 1, users)], strict=True)
    ]
    return sum(effects) + draw.normal(0, 1.0, shape)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "spreads"),
    [
        ((3, 3, 60), (0.4, 0.4, 1.0)),
        ((5, 2, 60), (0.4, 0.1, 1.0)),
        ((4, 1, 60), (0.4, 0.0, 1.0)),
        ((4, 4, 60), (0, 0, 1.0)),
    ],
    ids=str,
)
def test_the_interval_covers_seeds_and_users(shape: tuple[int, int, int], spreads: tuple[float, float, float]) -> None:
    draw = np.random.default_rng(0)
    trials, covered, of_users = 250, 0, 0
    for _ in range(trials):
        found = bootstrap_crossed(crossed(draw, shape, spreads=spreads), **SETTINGS)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0 <= found.high
        half = student.ppf(0.975, shape[2] - 1) * np.sqrt(spreads[2] ** 2 / shape[2] + 1 / np.prod(shape))
        of_users += abs(found.mean) <= half
    assert covered / trials >= 0.915  # 0.95 - 2.5 standard errors; it may err towards wide
    if spreads[0]:
        assert of_users / trials < 0.8  # what an interval over users alone would do


def test_without_users_spread_it_is_students_interval_over_seeds() -> None:
    """Each seed shifts all users alike, so users and training seeds carry no variance."""
    shifts = np.array([0.3, -0.2, 0.7, 0.4])
    found = bootstrap_crossed(
        np.broadcast_to(shifts[:, None, None], (4, 2, 50)).copy(), confidence=0.9, resamples=40_000, seed=0
    )
    half = student.ppf(0.95, 3) * shifts.std(ddof=1) / 2
    assert found.mean == pytest.approx(shifts.mean())
    assert found.low == pytest.approx(shifts.mean() - half, rel=0.02)
    assert found.high == pytest.approx(shifts.mean() + half, rel=0.02)


def test_the_same_answer_whatever_the_order_of_the_seeds() -> None:
    values = crossed(np.random.default_rng(1), (3, 4, 50), spreads=(0.4, 0.4, 1.0))
    many = {**SETTINGS, "resamples": 20_000}
    first, turned = bootstrap_crossed(values, **many), bootstrap_crossed(values[::-1, ::-1, ::-1].copy(), **many)
    assert first == bootstrap_crossed(values, **many)
    assert turned.mean == pytest.approx(first.mean)
    assert turned.low == pytest.approx(first.low, rel=0.05)


def test_a_factor_with_one_level_is_not_covered_and_said_to_be_so() -> None:
    values = crossed(np.random.default_rng(2), (3, 3, 40), spreads=(0.4, 0.4, 1.0))
    assert bootstrap_crossed(values, **SETTINGS).covers == ("selection seeds", "training seeds", "users")
    assert bootstrap_crossed(values[:, :1], **SETTINGS).covers == ("selection seeds", "users")
    assert bootstrap_crossed(values[:1], **SETTINGS).covers == ("training seeds", "users")
    assert bootstrap_crossed(values[:, :, :1], **SETTINGS).covers == ("selection seeds", "training seeds")
    alone = bootstrap_crossed(values[:1, :1], **SETTINGS)
    assert alone == bootstrap_mean(values[0, 0], **SETTINGS)
    assert alone.covers == ("users",)


def test_no_interval_where_resampling_says_nothing() -> None:
    assert bootstrap_crossed(np.ones((1, 1, 1)), **SETTINGS) == Interval(1.0, None, None, 1, ())
    flat = bootstrap_crossed(np.zeros((2, 3, 4)), **SETTINGS)
    assert flat == Interval(0.0, None, None, 4, ("selection seeds", "training seeds", "users"))


@pytest.mark.parametrize(
    "values", [np.ones((2, 3)), np.ones((0, 1, 3)), np.full((2, 2, 2), np.nan)], ids=lambda v: str(v.shape)
)
def test_other_shapes_and_nan_are_refused(values: Any) -> None:
    with pytest.raises(ValueError, match="selection seeds, training seeds, users"):
        bootstrap_crossed(values, **SETTINGS)
