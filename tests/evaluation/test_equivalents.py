"""Random-sample equivalents by hand, and their intervals under simulation."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dealrec.evaluation.equivalents import (
    Equivalent,
    equivalent_interval,
    holm,
    p_over_replicates,
    random_equivalent,
    replicates_to_settle,
)

SIZES = [100, 200, 400, 800]


@pytest.mark.parametrize(
    ("losses", "loss", "expected", "bound"),
    [
        ([4.0, 3.0, 2.0, 1.0], 4.0, 100, None),
        ([4.0, 3.0, 2.0, 1.0], 4.1, 100, "below"),
        ([4.0, 3.0, 2.0, 1.0], 1.0, 800, None),
        ([4.0, 3.0, 2.0, 1.0], 0.9, 800, "above"),
        ([4.0, 3.0, 2.0, 1.0], 2.75, 200 * 2**0.25, None),
        ([4.0, 4.0, 4.0, 1.0], 4.0, 100, None),  # level: the smallest that reaches it
        ([4.0, 2.0, 3.0, 1.0], 2.0, 200, None),  # a rise is levelled: the running minimum is 4, 2, 2, 1
        ([4.0, 2.0, 3.0, 1.0], 1.5, 400 * 2**0.5, None),
        ([1.0, 2.0, 3.0, 4.0], 0.5, 800, "above"),
    ],
)
def test_the_curve_is_linear_in_the_logarithm_of_the_size(
    losses: list[float], loss: float, expected: float, bound: str | None
) -> None:
    equivalent = random_equivalent(SIZES, losses, loss)
    assert equivalent.samples == pytest.approx(expected)
    assert equivalent.bound == bound


@pytest.mark.parametrize(
    ("sizes", "losses", "loss"),
    [([], [], 1.0), ([1, 1], [1.0, 1.0], 1.0), ([0, 1], [1.0, 1.0], 1.0), ([1, 2], [1.0], 1.0), ([1], [1.0], np.nan)],
)
def test_what_is_no_curve_is_refused(sizes: list[int], losses: list[float], loss: float) -> None:
    with pytest.raises(ValueError, match=r"one finite loss|must be positive and ascend"):
        random_equivalent(sizes, losses, loss)


def simulated(
    generator: np.random.Generator, means: list[float], *, replicates: int, users: int = 40
) -> list[NDArray[np.float64]]:
    """Losses [replicates, users] of arms with these means: a draw's own effect, each user's, and noise."""
    of_user = generator.normal(size=users)
    return [
        mean
        + of_user
        + 0.05 * generator.normal(size=(replicates, 1))
        + 0.2 * generator.normal(size=(replicates, users))
        for mean in means
    ]


def interval(arrays: list[NDArray[np.float64]], sizes: list[int]) -> tuple[Equivalent, Equivalent, Equivalent]:
    *curve, arm = arrays
    found = equivalent_interval(sizes, np.array(curve), arm, confidence=0.9, resamples=200, seed=0)
    assert found.low is not None
    assert found.high is not None
    return found.point, found.low, found.high


def test_the_interval_covers_the_size_that_an_arm_is_worth() -> None:
    generator = np.random.default_rng(0)
    hits, trials = 0, 60
    for _ in range(trials):
        means = [4.0, 3.8, 3.6, 3.4]
        point, low, high = interval(simulated(generator, [*means, 3.7], replicates=4), SIZES)
        assert low.samples <= point.samples <= high.samples
        hits += low.samples <= 200 * 2**0.5 <= high.samples
    assert hits >= 0.8 * trials  # 90 %, and room for chance: fewer than 48 of 60 come by chance in one of 500


def test_more_replicates_narrow_it() -> None:
    widths = []
    for replicates in (3, 24):
        _, low, high = interval(
            simulated(np.random.default_rng(1), [4.0, 3.8, 3.6, 3.4, 3.7], replicates=replicates), SIZES
        )
        widths.append(high.samples / low.samples)
    assert widths[1] < widths[0]


def test_one_replicate_has_no_interval() -> None:
    *curve, arm = simulated(np.random.default_rng(0), [4.0, 3.0, 3.5], replicates=1)
    found = equivalent_interval([1, 2], np.array(curve), arm, confidence=0.9, resamples=200, seed=0)
    assert (found.low, found.high) == (None, None)
    assert 1 < found.point.samples < 2


def test_p_is_student_s_over_replicates() -> None:
    # Mean 2, standard deviation 1, t = 2 / (1 / sqrt(3)) with two degrees of freedom.
    assert p_over_replicates(np.array([1.0, 2.0, 3.0])) == pytest.approx(0.0742, abs=1e-4)
    assert p_over_replicates(np.array([1.0])) is None
    assert p_over_replicates(np.zeros(3)) == 1.0


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03 times 3, 2, 1; none below the one before.
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([None, 0.5]) == [None, 0.5]
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def test_how_many_replicates_would_settle_it() -> None:
    # Mean 2, standard deviation 1: t(0.975) / sqrt(R) < 2 first at R = 4, 3.18 / 2 = 1.59; at 3, 4.30 / 1.73 = 2.48.
    assert replicates_to_settle(np.array([1.0, 2.0, 3.0]), confidence=0.95) == 4
    assert replicates_to_settle(np.array([1.0, -1.0]), confidence=0.95) is None
    assert replicates_to_settle(np.array([1.0]), confidence=0.95) is None
