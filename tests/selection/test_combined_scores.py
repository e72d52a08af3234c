"""The overall score by hand arithmetic."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dealrec.errors import NonFinite
from dealrec.selection import combine_scores


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_scores_are_scaled_then_weighed() -> None:
    got = combine_scores(tensor(-1e-6, 1e-6, 0.0), tensor(10.0, 30.0, 15.0), effort_weight=0.3)
    torch.testing.assert_close(got, tensor(0 + 0.3 * 0, 1 + 0.3 * 1, 0.5 + 0.3 * 5 / 20))


def test_a_weight_of_zero_leaves_influence() -> None:
    got = combine_scores(tensor(1.0, 3.0, 2.0), tensor(9.0, 4.0, 7.0), effort_weight=0.0)
    assert got.tolist() == [0.0, 1.0, 0.5]


def test_a_constant_scales_to_zero() -> None:
    assert combine_scores(tensor(5.0, 5.0), tensor(1.0, 2.0), effort_weight=2.0).tolist() == [0.0, 2.0]
    assert combine_scores(tensor(1.0, 2.0), tensor(0.0, 0.0), effort_weight=2.0).tolist() == [0.0, 1.0]
    assert combine_scores(tensor(7.0), tensor(8.0), effort_weight=1.0).tolist() == [0.0]


def test_no_samples_have_no_scores() -> None:
    assert combine_scores(tensor(), tensor(), effort_weight=1.0).tolist() == []


def test_single_precision_scores_come_back_in_double() -> None:
    assert combine_scores(torch.ones(2), torch.ones(2), effort_weight=1.0).dtype == torch.float64


@pytest.mark.parametrize("values", [(-1.7e308, 0.0, 1.7e308), (0.0, 5e-324, 1e-323), (0.0, 1e-310, 2e-310)])
def test_extreme_ranges_are_scaled_alike(values: tuple[float, float, float]) -> None:
    assert combine_scores(tensor(*values), tensor(0, 0, 0), effort_weight=1.0).tolist() == [0.0, 0.5, 1.0]


@given(
    st.lists(st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2), min_size=1, max_size=20),
    st.floats(0, 10),
)
def test_scores_are_finite_and_bounded(pairs: list[tuple[float, float]], weight: float) -> None:
    influence, effort = (tensor(*values) for values in zip(*pairs, strict=True))
    got = combine_scores(influence, effort, effort_weight=weight)
    assert bool(torch.isfinite(got).all())
    assert float(got.min()) >= 0.0
    assert float(got.max()) <= (1 + weight) * (1 + 1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_an_error_that_names_it(bad: float) -> None:
    with pytest.raises(NonFinite, match=r"influence .* positions 1 "):
        combine_scores(tensor(0.0, bad), tensor(0.0, 1.0), effort_weight=1.0)
    with pytest.raises(NonFinite, match=r"effort .* positions 0 "):
        combine_scores(tensor(0.0, 1.0), tensor(bad, 1.0), effort_weight=0.0)


def test_scores_of_different_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="must be"):
        combine_scores(tensor(1.0, 2.0), tensor(1.0), effort_weight=1.0)
