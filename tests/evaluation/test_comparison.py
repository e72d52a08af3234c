"""Selected arms against random ones, by hand: two selections, two random arms, two trainings, three users."""

from typing import Any

import numpy as np
import pytest

from dealrec.evaluation import PermutationTest, bootstrap_crossed, compare_arms, paired_differences

HOW: dict[str, Any] = {"confidence": 0.95, "resamples": 100, "seed": 0}
SELECTED = np.array([[[1.0, 2, 3], [2, 3, 4]], [[1, 1, 1], [3, 3, 3]]])
RANDOM = np.array([[[2.0, 2, 5], [2, 4, 6]], [[0, 1, 5], [4, 5, 3]]])
PAIRED = np.array([[[-1.0, 0, -2], [0, -1, -2]], [[1, 0, -4], [-1, -2, 0]]])


def test_as_many_random_arms_are_paired_by_number() -> None:
    found = compare_arms(SELECTED, RANDOM, **HOW, lower_is_better=True)
    assert found.difference == bootstrap_crossed(PAIRED, **HOW)
    assert found.difference.mean == -1
    assert found.difference.covers == ("selection seeds", "training seeds", "users")
    # The users' means -1/4, -3/4 and -2 are all of one sign: 2 of 2^3 choices of signs are as far from 0.
    assert found.users == PermutationTest(0.25, exact=True, least=0.25)
    # The arms' means 2.5 and 2 against 3.5 and 3: one of six choices of two arms is as low.
    assert found.arms is not None
    assert found.arms.p == pytest.approx(2 / 6)
    assert found.arms.least == pytest.approx(2 / 6)


def test_another_number_of_random_arms_is_averaged() -> None:
    found = compare_arms(SELECTED[:1], RANDOM, **HOW, lower_is_better=True)
    # Against t0 [1, 1.5, 5] and t1 [3, 4.5, 4.5].
    assert found.difference == bootstrap_crossed(np.array([[[0, 0.5, -2], [-1, -1.5, -0.5]]]), **HOW)
    assert found.difference.mean == -0.75
    assert found.difference.covers == ("training seeds", "users")
    assert found.arms is not None
    assert found.arms.p == pytest.approx(2 / 3)  # 2.5 is the lowest of 2.5, 3.5 and 3


def test_one_arm_of_each_kind_has_no_test_over_arms() -> None:
    found = compare_arms(SELECTED[:1, :1], RANDOM[:1, :1], **HOW, lower_is_better=True)
    assert found.arms is None
    assert found.difference.covers == ("users",)
    assert found.users.p == 0.5  # the differences -1, 0 and -2: 2 of 2^2 choices of signs


@pytest.mark.parametrize(("lower_is_better", "says"), [(True, "better"), (False, "worse")])
def test_the_verdict_is_that_of_the_interval(lower_is_better: bool, says: str) -> None:
    selected = np.arange(24.0).reshape(2, 2, 6)
    random = selected + 100 + np.linspace(0, 1, 24).reshape(2, 2, 6)
    assert compare_arms(selected, random, **HOW, lower_is_better=lower_is_better).verdict == says


def test_other_trainings_or_users_are_refused() -> None:
    with pytest.raises(ValueError, match="same trainings and users"):
        paired_differences(SELECTED, RANDOM[:, :1])
