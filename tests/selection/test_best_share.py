"""Draws among the best."""

import pytest
import torch

from dealrec.errors import NonFinite
from dealrec.selection import best_share_sample


def test_it_draws_among_the_best_share_alone_and_reaches_all_of_it() -> None:
    scores = torch.arange(100.0)
    draws = [best_share_sample(scores, 5, share=0.1, seed=seed) for seed in range(60)]
    assert {int(i) for draw in draws for i in draw} == set(range(90, 100))
    assert all(draw.tolist() == sorted(draw.tolist(), reverse=True) for draw in draws)  # the best first
    assert torch.equal(draws[0], best_share_sample(scores, 5, share=0.1, seed=0))


def test_a_share_below_the_budget_becomes_the_budget() -> None:
    assert best_share_sample(torch.arange(10.0), 4, share=0.1).tolist() == [9, 8, 7, 6]
    assert best_share_sample(torch.arange(3.0), 9).tolist() == [2, 1, 0]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="share must be"):
        best_share_sample(torch.ones(2), 1, share=0.0)
    with pytest.raises(NonFinite):
        best_share_sample(torch.tensor([float("inf")]), 1)
