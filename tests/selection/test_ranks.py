"""Sums of ranks."""

import torch

from dealrec.selection import mean_rank


def test_ties_share_their_mean_rank() -> None:
    # Ranks 1, 2.5, 2.5, 4 of four, and 4, 3, 2, 1 of four.
    ranks = mean_rank(torch.tensor([0.0, 7.0, 7.0, 9.0]), torch.tensor([4.0, 3.0, 2.0, 1.0]))
    assert ranks.tolist() == [(1 + 4) / 8, (2.5 + 3) / 8, (2.5 + 2) / 8, (4 + 1) / 8]


def test_only_the_order_counts() -> None:
    scores = torch.tensor([3.0, -1.0, 2.0])
    assert torch.equal(mean_rank(scores), mean_rank(scores.exp() * 1000))
