"""Sums of ranks."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from dealrec.selection import mean_rank


def test_ties_share_their_mean_rank() -> None:
    # Ranks 1, 2.5, 2.5, 4 of four, and 4, 3, 2, 1 of four.
    ranks = mean_rank(torch.tensor([0.0, 7.0, 7.0, 9.0]), torch.tensor([4.0, 3.0, 2.0, 1.0]))
    assert ranks.tolist() == [(1 + 4) / 8, (2.5 + 3) / 8, (2.5 + 2) / 8, (4 + 1) / 8]


def test_only_the_order_counts() -> None:
    scores = torch.tensor([3.0, -1.0, 2.0])
    assert torch.equal(mean_rank(scores), mean_rank(scores.exp() * 1000))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([-1e300, -1.5, -0.0, 0.0, 5e-324, 2.0, 2.0000000000000004, 1e300]), min_size=1))
def test_ranks_are_those_of_scipy(scores: list[float]) -> None:
    wanted = [rank / len(scores) for rank in rankdata(scores)]
    assert mean_rank(torch.tensor(scores, dtype=torch.float64)).tolist() == wanted
