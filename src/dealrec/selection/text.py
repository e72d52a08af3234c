"""Samples by the titles that they are about."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def sample_embeddings(titles: Tensor, histories: Sequence[Sequence[int]], targets: Sequence[int]) -> Tensor:
    """The target's embedding beside the history's mean, each at length 1, over the root of two: [n, 2 D].

    titles: [items, D], of length 1. histories, targets: internal indices, from 1. The product of two samples is the
    mean of the cosines of their targets and of their histories, so that a long history does not drown its target;
    of an empty one it is half the former. A title is embedded once, not once a sample, and none is cut with a prompt.

    >>> titles = torch.eye(2)
    >>> (sample_embeddings(titles, [[1, 1], []], [2, 2]) * 2**0.5).round().tolist()
    [[0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
    """
    items = torch.tensor([item - 1 for history in histories for item in history], dtype=torch.int64)
    lengths = torch.tensor([len(history) for history in histories], dtype=torch.int64)
    sums = functional.embedding_bag(items, titles, lengths.cumsum(0) - lengths, mode="sum")
    of_targets = titles[torch.tensor(list(targets), dtype=torch.int64) - 1]
    return torch.cat([of_targets, functional.normalize(sums, dim=1)], dim=1) / 2**0.5
