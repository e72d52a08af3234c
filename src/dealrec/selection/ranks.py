"""Ranks of scores, to add up scores of different scales."""

import numpy as np
import polars as pl
import torch
from torch import Tensor

from dealrec.selection.scores import require_finite


def mean_rank(*scores: Tensor) -> Tensor:
    """The mean of each sample's ranks by several scores, each scaled to (0, 1], ties sharing their mean rank: [n].

    >>> mean_rank(torch.tensor([1.0, 5.0]), torch.tensor([0.1, 0.2])).tolist()
    [0.5, 1.0]
    """
    for number, score in enumerate(scores):
        require_finite(score, f"score {number + 1}")
    ranks = [pl.Series(score.double().numpy()).rank("average").to_numpy() / max(1, len(score)) for score in scores]
    return torch.from_numpy(np.mean(ranks, axis=0))
