"""Permutation tests of the hypothesis that two arms are the same."""

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

_ROUNDING = 1e-12  # sums that are equal but for the order of their terms count as equal
_SIGNS_AT_ONCE = 5_000_000


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
    moved = differences[differences != 0]  # a flipped 0 is the same, so leaving it out changes no share
    if len(moved) == 0:
        return PermutationTest(1.0, exact=True, least=1.0)
    bar = abs(moved.sum()) - _ROUNDING * np.abs(moved).sum()
    if 2 ** len(moved) <= resamples:
        sums = moved[:1]  # the first sign can stay, as turning all signs round keeps the distance from 0
        for value in moved[1:]:
            sums = np.concatenate([sums + value, sums - value])
        return PermutationTest(float((np.abs(sums) >= bar).mean()), exact=True, least=1 / len(sums))
    draw = np.random.default_rng(seed)
    beyond, rows = 0, max(1, _SIGNS_AT_ONCE // len(moved))
    for start in range(0, resamples, rows):
        flipped = draw.random((min(rows, resamples - start), len(moved)), dtype=np.float32) < 0.5
        beyond += int((np.abs(moved.sum() - 2 * (flipped @ moved)) >= bar).sum())
    return PermutationTest((beyond + 1) / (resamples + 1), exact=False, least=1 / (resamples + 1))


def label_test(ours: NDArray[np.float64], theirs: NDArray[np.float64], *, resamples: int, seed: int) -> PermutationTest:
    """Permutation test over runs: do the means of `ours` [k] and `theirs` [m], one value per run, differ?

    If both kinds of arms are the same, any k of the k + m runs could have been ours. p: twice the smaller of the
    two one-sided shares, at most 1; of all choices if they are at most `resamples`, otherwise of `resamples` random
    ones, (b + 1) / (m + 1). Runs must be independent draws: each with selection and training seeds of its own. One
    selected arm against r random ones can at best reach 2 / (r + 1).
    """
    if min(len(ours), len(theirs)) == 0 or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise ValueError("expected finite values, at least one of each kind of arm")
    values, k = np.concatenate([ours, theirs]), len(ours)
    bar, slack = values[:k].sum(), _ROUNDING * np.abs(values).sum()  # the sum of ours decides the difference of means
    exact = comb(len(values), k) <= resamples
    if exact:
        chosen = np.array(list(combinations(range(len(values)), k)))
    else:
        chosen = np.random.default_rng(seed).random((resamples, len(values))).argsort(axis=1)[:, :k]
    sums = values[chosen].sum(axis=1)
    beyond = min(int((sums >= bar - slack).sum()), int((sums <= bar + slack).sum()))
    counted, seen = len(sums), 0 if exact else 1  # drawn at random, the choice seen is counted besides
    return PermutationTest(
        min(1.0, 2 * (beyond + seen) / (counted + seen)), exact=exact, least=min(1.0, 2 / (counted + seen))
    )
