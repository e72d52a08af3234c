"""The best of each group, as many as the group's share in validation asks for."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from dealrec.selection.scores import require_finite


def quota_sample(scores: Tensor, groups: Tensor, shares: Mapping[int, float], budget: int) -> Tensor:
    """Indices of exactly min(budget, n) samples, the best first, no repeats: int64.

    scores: [n], finite. groups: [n], an integer per sample: its target item, or a cluster of targets. shares: of each
    group in validation; absent means 0. From the top of the scores down (of equal ones the lower index first), at most
    max(1, ceil(budget * share)) of a group are taken; where that leaves the budget unfilled, every cap is raised by one
    and the walk begins anew. What a signal ranks highest repeats a few targets; so validation says how many samples a
    target gets, and the signal which.

    >>> scores, groups = torch.tensor([9.0, 8.0, 7.0, 1.0]), torch.tensor([5, 5, 5, 6])
    >>> quota_sample(scores, groups, {5: 0.6}, 3)  # two of 5, one of 6
    tensor([0, 1, 3])
    >>> quota_sample(scores, groups, {}, 3)  # one each leaves one to fill: two each
    tensor([0, 1, 3])
    """
    if scores.shape != groups.shape or scores.dim() != 1:
        raise ValueError(f"scores {tuple(scores.shape)} and groups {tuple(groups.shape)} must be [n] both")
    require_finite(scores, "the score")
    count = min(budget, len(scores))
    if count <= 0:
        return torch.zeros(0, dtype=torch.int64)
    order = scores.double().argsort(descending=True, stable=True)
    names, group_of = groups[order].unique(return_inverse=True)
    caps = torch.tensor([max(1, math.ceil(budget * shares.get(name, 0.0) - 1e-9)) for name in names.tolist()])
    rounds = (_place_in_group(group_of) + 1 - caps[group_of]).clamp_min(0)  # that caps are raised until one is reached
    last = int(rounds.sort().values[count - 1])
    return order[rounds <= last][:count]


def _place_in_group(group_of: Tensor) -> Tensor:
    """How many earlier ones are of the same group: [n]."""
    by_group = group_of.argsort(stable=True)
    sizes = torch.bincount(group_of)
    starts = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    places = torch.empty_like(group_of)
    places[by_group] = torch.arange(len(group_of)) - starts
    return places
