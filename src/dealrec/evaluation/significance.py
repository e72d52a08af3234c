"""Bootstrap intervals over users."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap


@dataclass(frozen=True)
class Interval:
    """A mean over n users with its interval; low and high are None where no interval can be had."""

    mean: float
    low: float | None
    high: float | None
    n: int


def bootstrap_mean(values: NDArray[np.float64], *, confidence: float, resamples: int, seed: int) -> Interval:
    """Mean of per-user values with its percentile bootstrap interval.

    For a paired comparison give the users' differences. With fewer than two values, or with all of them equal
    (such as no hit at all), resampling says nothing of the spread, and the interval is None rather than of no width.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values to take the mean of")
    mean = float(values.mean())
    if n < 2 or np.ptp(values) == 0:
        return Interval(mean, None, None, n)
    found = bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        method="percentile",
        batch=max(1, 10_000_000 // n),
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high), n)


def verdict(difference: Interval, *, lower_is_better: bool) -> str:
    """What a paired difference (selected - random) says: better, worse, or not distinguishable."""
    if difference.low is None or difference.high is None or difference.low <= 0 <= difference.high:
        return "not distinguishable"
    return "better" if (difference.high < 0) == lower_is_better else "worse"
