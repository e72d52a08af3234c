"""Random-sample equivalents: how many random samples reach the test loss that a selection reaches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from dealrec.evaluation.crossed import crossed_interval

MOST_REPLICATES = 100


@dataclass(frozen=True)
class Equivalent:
    """A number of random samples. bound: the loss is outside of what was measured, and `samples` the end there."""

    samples: float
    bound: Literal["below", "above"] | None = None


@dataclass(frozen=True)
class EquivalentInterval:
    """Of the equivalent, its point and the ends of its interval; None without replicates."""

    point: Equivalent
    low: Equivalent | None
    high: Equivalent | None


def random_equivalent(sizes: Sequence[float], losses: Sequence[float], loss: float) -> Equivalent:
    """How many random samples reach this loss, by Random's losses at several sizes.

    sizes: ascending, positive. Between them the loss is taken as linear in the logarithm of the size, after Random's
    losses are made to fall (their running minimum); where they are level, the smallest size that reaches the loss
    counts. Outside of them there is no number: a loss above the first is "below", one below the last "above". Raises
    ValueError for sizes that do not ascend, and for other than one finite loss each.

    >>> round(random_equivalent([100, 400], [3.0, 2.0], 2.5).samples, 6)  # half way, on a logarithmic axis
    200.0
    >>> random_equivalent([100, 400], [3.0, 2.0], 1.9)
    Equivalent(samples=400.0, bound='above')
    """
    points, curve = np.asarray(sizes, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if len(points) == 0 or points.shape != curve.shape or not np.isfinite([*points, *curve, loss]).all():
        raise ValueError("expected one finite loss for each size, and a finite loss to look up")
    if points[0] <= 0 or (np.diff(points) <= 0).any():
        raise ValueError(f"the sizes must be positive and ascend: {list(sizes)}")
    curve = np.minimum.accumulate(curve)
    if loss > curve[0]:
        return Equivalent(float(points[0]), "below")
    if loss < curve[-1]:
        return Equivalent(float(points[-1]), "above")
    place = int(np.argmax(curve <= loss))  # the first that reaches it
    if place == 0 or curve[place] == loss:
        return Equivalent(float(points[place]))
    part = (curve[place - 1] - loss) / (curve[place - 1] - curve[place])
    low, high = np.log(points[place - 1 : place + 1])
    return Equivalent(float(np.exp(low + part * (high - low))))


def equivalent_interval(
    sizes: Sequence[float],
    curve: NDArray[np.float64],
    losses: NDArray[np.float64],
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> EquivalentInterval:
    """The equivalent of an arm's mean loss with an interval over replicates and users.

    curve: Random's losses, [sizes, replicates, users]; losses: the arm's, [replicates, users]. The interval holds the
    sizes at which Random cannot be told from the arm: where the interval of the paired difference at that size
    (`crossed_interval`) covers zero, its ends being taken as linear in the logarithm of the size.
    """
    point = random_equivalent(sizes, curve.mean(axis=(1, 2)).tolist(), float(losses.mean()))
    intervals = [
        crossed_interval(losses - random, confidence=confidence, resamples=resamples, seed=seed) for random in curve
    ]
    if len(losses) < 2 or any(interval.low is None or interval.high is None for interval in intervals):
        return EquivalentInterval(point, None, None)
    # Falling with the size, as losses do: the arm is better for certain up to where -high reaches 0.
    low = random_equivalent(sizes, [-float(interval.high or 0.0) for interval in intervals], 0.0)
    high = _last_reached(sizes, [-float(interval.low or 0.0) for interval in intervals])
    return EquivalentInterval(point, low, high)


def _last_reached(sizes: Sequence[float], values: Sequence[float]) -> Equivalent:
    """Where falling values reach zero for good: as `random_equivalent`, from the other side."""
    rising = np.maximum.accumulate(np.asarray(values, dtype=np.float64)[::-1])[::-1]
    return random_equivalent(sizes, rising.tolist(), 0.0)


def p_over_replicates(differences: NDArray[np.float64]) -> float | None:
    """Two-sided p of the mean of paired differences, [replicates], by Student's t; None with fewer than two.

    A replicate's difference is a mean over users, and replicates are independent draws from the surrogate's seed on.
    """
    if len(differences) < 2:
        return None
    if np.ptp(differences) == 0:
        return 1.0 if differences[0] == 0 else 0.0
    return float(ttest_1samp(differences, 0.0).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for that there are several (Holm, Scandinavian Journal of Statistics 6, 1979).

    >>> holm([0.01, 0.04, None, 0.03])
    [0.03, 0.06, None, 0.06]
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        corrected[place] = largest
    return corrected


def replicates_to_settle(differences: NDArray[np.float64], *, confidence: float) -> int | None:
    """Replicates with which an interval by Student's t would exclude zero, were mean and spread to stay as they are.

    None: more than a hundred, or there are not two replicates to tell the spread by.
    """
    if len(differences) < 2:
        return None
    mean, spread = abs(float(differences.mean())), float(differences.std(ddof=1))
    for number in range(2, MOST_REPLICATES + 1):
        if float(student.ppf((1 + confidence) / 2, number - 1)) * spread < mean * number**0.5:
            return number
    return None
