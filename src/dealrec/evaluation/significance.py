"""Bootstrap intervals over users, and over seeds and users."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap
from scipy.stats import t as student

FACTORS = ("selection seeds", "training seeds", "users")  # the axes of an array of differences
_NUMBERS_AT_ONCE = 10_000_000


@dataclass(frozen=True)
class Interval:
    """A mean over n users with its interval; low and high are None where no interval can be had.

    covers: what else could have been drawn. An interval over users alone says nothing of another seed.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    covers: tuple[str, ...] = ("users",)


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
    interval = bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        method="percentile",
        batch=max(1, _NUMBERS_AT_ONCE // n),
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(interval.low), float(interval.high), n)


def bootstrap_crossed(differences: NDArray[np.float64], *, confidence: float, resamples: int, seed: int) -> Interval:
    """Mean of paired differences with an interval for other selection seeds, training seeds and users.

    differences: [selection seeds, training seeds, users]; crossed, that is each training seed (a data order, an
    initialisation) and each user occurs with every selection seed. The three are drawn independently with
    replacement, so that whole slices come and go together (the pigeonhole bootstrap: Owen, Annals of Applied
    Statistics 1(2), 2007), one fewer of each than there are, without which the variance between n seeds would be
    (n - 1) / n of what it is (Rao & Wu, JASA 83, 1988). As percentiles of three seeds cannot reach far enough, the
    interval is mean +- t * bootstrap standard error, with the degrees of freedom of Satterthwaite (Biometrics
    Bulletin 2, 1946) for the sum of the variances between the three kinds of slices. It errs towards wide: variation
    of a single cell counts as often as it has factors.

    A factor with one level cannot be resampled: `covers` leaves it out, and the interval holds for that seed only.
    With one seed of each it is `bootstrap_mean` over users. Raises ValueError unless the array has three axes of
    at least one level, and finite values.
    """
    if differences.ndim != 3 or differences.size == 0 or not np.isfinite(differences).all():
        raise ValueError("expected finite differences of shape [selection seeds, training seeds, users]")
    n = differences.shape[2]
    varied = tuple(axis for axis in range(3) if differences.shape[axis] > 1)
    covers = tuple(FACTORS[axis] for axis in varied)
    if varied == (2,):
        return bootstrap_mean(differences[0, 0], confidence=confidence, resamples=resamples, seed=seed)
    mean = float(differences.mean())
    if np.ptp(differences) == 0:
        return Interval(mean, None, None, n, covers)
    error = float(_resampled_means(differences, resamples, np.random.default_rng(seed)).std())
    reach = float(student.ppf((1 + confidence) / 2, _degrees_of_freedom(differences, varied))) * error
    return Interval(mean, mean - reach, mean + reach, n, covers)


def _resampled_means(
    differences: NDArray[np.float64], resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Means, [resamples], of the array with each axis drawn anew, one level fewer than it has."""
    at_once = max(1, _NUMBERS_AT_ONCE // max(differences.shape))
    means = []
    for start in range(0, resamples, at_once):
        weights = []
        for levels in differences.shape:
            draws = max(1, levels - 1)
            size = min(at_once, resamples - start)
            weights.append(generator.multinomial(draws, np.full(levels, 1 / levels), size=size) / draws)
        selection, training, users = weights
        of_seeds = np.tensordot(users, differences, axes=(1, 2))  # [resamples, selection seeds, training seeds]
        means.append(np.einsum("bs,bt,bst->b", selection, training, of_seeds))
    return np.concatenate(means)


def _degrees_of_freedom(differences: NDArray[np.float64], varied: tuple[int, ...]) -> float:
    """Satterthwaite's, for the sum over axes of the variance of the mean of that axis' slices."""
    slices = [differences.mean(axis=tuple(other for other in range(3) if other != axis)) for axis in varied]
    variances = np.array([means.var(ddof=1) / len(means) for means in slices])
    freedoms = np.array([len(means) - 1 for means in slices])
    if variances.sum() == 0:  # slices alike to the last bit: no main effect at all
        return float(freedoms.min())
    return float(variances.sum() ** 2 / (variances**2 / freedoms).sum())


def verdict(difference: Interval, *, lower_is_better: bool) -> str:
    """What a paired difference (selected - random) says: better, worse, or not distinguishable."""
    if difference.low is None or difference.high is None or difference.low <= 0 <= difference.high:
        return "not distinguishable"
    return "better" if (difference.high < 0) == lower_is_better else "worse"
