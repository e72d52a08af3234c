"""Permutation tests of the hypothesis that two arms are the same."""

from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import monte_carlo_test, permutation_test

_DIGITS = 12  # of a statistic that count: sums that are equal but for the order of their terms are equal
_VALUES_AT_ONCE = 5_000_000


@dataclass(frozen=True)
class PermutationTest:
    """p: two-sided p-value. exact: whether all permutations were counted. least: the lowest p that was possible.

    Where `least` is above the level of the test, as with four seeds and 0.05, no data could have been significant.
    """

    p: float
    exact: bool
    least: float


def sign_flip_test(differences: NDArray[np.float64], *, resamples: int, seed: int) -> PermutationTest:
    """Paired permutation test of per-user differences [n] between two arms: is their mean 0?

    If the arms are the same, each user's two values could as well have come the other way round, so every choice of
    signs is as likely (Fisher, The Design of Experiments, 1935). p: share of the choices whose mean is at least as
    far from 0 as the one seen; all 2^n if they are at most `resamples`, otherwise of `resamples` random ones with
    the one seen among them, (b + 1) / (m + 1) (Phipson & Smyth, SAGMB 9, 2010). Users without a difference weigh
    nothing. It speaks of these users and this pair of models; given one mean difference per seed, of seeds.
    """
    if len(differences) == 0 or not np.isfinite(differences).all():
        raise ValueError("expected finite differences, one per user")
    nonzero = differences[differences != 0]  # a flipped 0 is the same, so leaving it out changes no share
    if len(nonzero) < 2:
        return PermutationTest(1.0, exact=True, least=1.0)
    total, scale = nonzero.sum(), np.abs(nonzero).sum()

    def distance(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.round(np.abs(sums) / scale, _DIGITS))

    batch = max(1, _VALUES_AT_ONCE // len(nonzero))
    options: dict[str, Any] = {"n_resamples": resamples, "batch": batch, "vectorized": True, "alternative": "greater"}
    if 2 ** len(nonzero) <= resamples:
        test = permutation_test(
            (nonzero,), lambda d, axis: distance(d.sum(axis)), permutation_type="samples", **options
        )
        return PermutationTest(float(test.pvalue), exact=True, least=2 / 2 ** len(nonzero))
    generator = np.random.default_rng(seed)

    def flipped_distances(*, size: tuple[int, ...]) -> NDArray[np.float64]:
        # permutation_test would shuffle each user's two signs in turn, which takes hundreds of times as long.
        flips = generator.random((size[0], len(nonzero)), dtype=np.float32) < 0.5
        return distance(total - 2 * (flips @ nonzero))[:, None]

    sampled = monte_carlo_test([float(distance(total))], flipped_distances, lambda d, axis: d.sum(axis), **options)
    return PermutationTest(float(sampled.pvalue), exact=False, least=1 / (resamples + 1))


def label_test(ours: NDArray[np.float64], theirs: NDArray[np.float64], *, resamples: int, seed: int) -> PermutationTest:
    """Permutation test over runs: do the means of `ours` [k] and `theirs` [m], one value per run, differ?

    If both kinds of arms are the same, any k of the k + m runs could have been ours. p: twice the smaller of the
    two one-sided shares, at most 1; of all choices if they are at most `resamples`, otherwise of `resamples` random
    ones, (b + 1) / (m + 1). Runs must be independent draws: each with selection and training seeds of its own. One
    selected arm against r random ones can at best reach 2 / (r + 1).
    """
    if min(len(ours), len(theirs)) == 0 or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise ValueError("expected finite values, at least one of each kind of arm")
    values = np.concatenate([ours, theirs])
    scale = np.abs(values).sum() or 1.0
    if min(len(ours), len(theirs)) == 1:  # scipy takes no sample of one; its rank says all
        values, single = (np.round(v / scale, _DIGITS) for v in (values, ours if len(ours) == 1 else theirs))
        side = min((values >= single).mean(), (values <= single).mean())
        return PermutationTest(min(1.0, 2 * float(side)), exact=True, least=min(1.0, 2 / len(values)))
    choices = comb(len(values), len(ours))
    test = permutation_test(
        (ours, theirs),
        lambda x, y, axis: np.round((x.mean(axis) - y.mean(axis)) / scale, _DIGITS),
        n_resamples=resamples,
        batch=max(1, _VALUES_AT_ONCE // len(values)),
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    total = choices if choices <= resamples else resamples + 1  # drawn at random, the choice seen is counted besides
    return PermutationTest(float(test.pvalue), exact=choices <= resamples, least=min(1.0, 2 / total))
