"""Intervals over replicates and users for many differences at once: the draws are made once and shared."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from dealrec.evaluation.significance import Interval

MOST, LARGEST = 2_000, 50_000_000  # resamples of a standard error; numbers that the users' draws may take
_COVERS = ("replicates", "users")


def crossed_interval(differences: NDArray[np.float64], *, confidence: float, resamples: int, seed: int) -> Interval:
    """Mean of paired differences, [replicates, users], with an interval for other replicates and users.

    Both are resampled independently, one fewer than there are (Rao and Wu, JASA 83, 1988), as `bootstrap_crossed` does
    for three factors; the interval is mean +- t times the standard error of the resampled means, with the degrees of
    freedom of Satterthwaite. One replicate: percentiles over users alone, and `covers` says so. Without spread there is
    no interval. Raises ValueError for other than finite differences.
    """
    if differences.ndim != 2 or differences.size == 0 or not np.isfinite(differences).all():
        raise ValueError("expected finite differences of shape [replicates, users]")
    replicates, users = differences.shape
    mean = float(differences.mean())
    covers = tuple(name for name, levels in zip(_COVERS, differences.shape, strict=True) if levels > 1)
    if np.ptp(differences) == 0 or not covers:
        return Interval(mean, None, None, users, covers)
    of_replicates, of_users = _draws(replicates, users, min(resamples, MOST), seed)
    means = ((of_replicates @ differences.astype(np.float32)) * of_users).sum(axis=1)
    if replicates == 1:
        low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
        return Interval(mean, float(low), float(high), users, covers)
    reach = float(student.ppf((1 + confidence) / 2, _freedom(differences)) * means.std())
    return Interval(mean, mean - reach, mean + reach, users, covers)


@lru_cache(maxsize=8)
def _draws(replicates: int, users: int, resamples: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights of the replicates, [resamples, replicates], and of the users."""
    generator = np.random.default_rng(seed)
    size = max(200, min(resamples, LARGEST // users))
    weights = []
    for levels in (replicates, users):
        draws = max(1, levels - 1)
        drawn = generator.multinomial(draws, np.full(levels, 1 / levels), size=size)
        weights.append((drawn / draws).astype(np.float32))
    return weights[0], weights[1]


def _freedom(differences: NDArray[np.float64]) -> float:
    """Satterthwaite's degrees of freedom for the sum of the two variances of the mean."""
    slices = [differences.mean(axis=axis) for axis in (1, 0)]
    variances = np.array([means.var(ddof=1) / len(means) for means in slices if len(means) > 1])
    freedoms = np.array([len(means) - 1 for means in slices if len(means) > 1])
    if variances.sum() == 0:
        return float(freedoms.min())
    return float(variances.sum() ** 2 / (variances**2 / freedoms).sum())
