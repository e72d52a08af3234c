"""Selected arms against random ones on one measure, over selections, trainings and users."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dealrec.evaluation.permutation import PermutationTest, label_test, sign_flip_test
from dealrec.evaluation.significance import Interval, bootstrap_crossed, verdict


@dataclass(frozen=True)
class Comparison:
    """Selected against random on one measure.

    difference: mean of selected - random, with the interval over all that there is more than one of. verdict: what
    that interval says. users: the test of the users' mean differences; it takes these models as given. arms: the
    test over arms; None with one arm of each kind, where there is nothing to exchange.
    """

    difference: Interval
    verdict: str
    users: PermutationTest
    arms: PermutationTest | None


def compare_arms(
    selected: NDArray[np.float64],
    random: NDArray[np.float64],
    *,
    confidence: float,
    resamples: int,
    seed: int,
    lower_is_better: bool,
) -> Comparison:
    """Compare values [selections, trainings, users] with values [random arms, trainings, users].

    Training t has the same seed in every arm, and the users are the same. So the runs are not independent, and the
    test over arms takes one value an arm, its mean over trainings and users. Its hypothesis is that the two kinds
    have one distribution, not merely one mean, given what they share: training seeds and users, and of the
    selected the scores and candidates, which are the same in all of them.
    """
    differences = paired_differences(selected, random)
    interval = bootstrap_crossed(differences, confidence=confidence, resamples=resamples, seed=seed)
    users = sign_flip_test(differences.mean(axis=(0, 1)), resamples=resamples, seed=seed)
    arms = None
    if len(selected) + len(random) > 2:
        arms = label_test(selected.mean(axis=(1, 2)), random.mean(axis=(1, 2)), resamples=resamples, seed=seed)
    return Comparison(interval, verdict(interval, lower_is_better=lower_is_better), users, arms)


def paired_differences(selected: NDArray[np.float64], random: NDArray[np.float64]) -> NDArray[np.float64]:
    """Selected - random, [selections, trainings, users].

    With as many random arms as selections, selection s is paired with random arm s: both are draws of their own, so
    any pairing would do, and the spread over s is then that of both. Otherwise every selection is compared with the
    mean of the random arms, and the spread of that mean is in no interval.

    >>> paired_differences(np.ones((1, 1, 2)), np.array([[[0.0, 1.0]], [[1.0, 3.0]]])).tolist()
    [[[0.5, -1.0]]]
    """
    if selected.shape[1:] != random.shape[1:]:
        raise ValueError(f"expected the same trainings and users, not {selected.shape} and {random.shape}")
    return selected - (random if len(selected) == len(random) else random.mean(axis=0))
