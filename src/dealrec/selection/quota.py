"""The best of each group, as many as the group's share in validation asks for; also within bands of popularity."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from dealrec.selection.scores import require_finite


def quota_sample(scores: Tensor, groups: Tensor, shares: Mapping[int, float], budget: int, *, least: int = 1) -> Tensor:
    """Indices of exactly min(budget, n) samples, the best first, no repeats: int64.

    scores: [n], finite. groups: [n], an integer per sample: its target item, or a cluster of targets. shares: of each
    group in validation; absent means 0. From the top of the scores down (of equal ones the lower index first), at most
    max(least, ceil(budget * share)) of a group are taken; where that leaves the budget unfilled, every cap is raised by
    one and the walk begins anew. What a signal ranks highest repeats a few targets; so validation says how many samples
    a target gets, and the signal which.

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
    caps = torch.tensor([max(least, math.ceil(budget * shares.get(name, 0.0) - 1e-9)) for name in names.tolist()])
    rounds = (_place_in_group(group_of) + 1 - caps[group_of]).clamp_min(0)  # that caps are raised until one is reached
    last = int(rounds.kthvalue(count).values)
    return order[rounds <= last][:count]


def banded_quota_sample(
    scores: Tensor,
    groups: Tensor,
    shares: Mapping[int, float],
    popularity: Mapping[int, float],
    budget: int,
    *,
    bands: int = 20,
) -> Tensor:
    """Indices of exactly min(budget, n) samples, the best first, no repeats: int64.

    scores, groups, shares: as in `quota_sample`. popularity: of each group in training; absent means 0. Groups are
    sorted by popularity into at most so many bands of about one share in validation each, equally popular ones into
    one; each band gets samples in proportion to its share, in it chosen by `quota_sample` with no least number; what a
    band cannot fill is chosen so among all others. At least one of a group, over the many rare ones, is more than
    validation has of them: bands hold the balance, and groups that validation lacks come last.

    >>> scores, groups = torch.tensor([9.0, 8.0, 7.0, 1.0, 0.5]), torch.tensor([5, 6, 7, 8, 8])
    >>> banded_quota_sample(scores, groups, {8: 0.5, 7: 0.5}, {8: 0.9}, 2, bands=2)  # validation lacks 5 and 6
    tensor([2, 3])
    """
    if bands < 1:
        raise ValueError(f"bands must be at least 1, not {bands}")
    if scores.shape != groups.shape or scores.dim() != 1:
        raise ValueError(f"scores {tuple(scores.shape)} and groups {tuple(groups.shape)} must be [n] both")
    require_finite(scores, "the score")
    names, group_of = groups.unique(return_inverse=True)
    share = torch.tensor([shares.get(name, 0.0) for name in names.tolist()], dtype=torch.float64)
    known = torch.tensor([popularity.get(name, 0.0) for name in names.tolist()], dtype=torch.float64)
    levels, level_of = known.unique(return_inverse=True)  # groups that are equally popular stay together
    of_levels = torch.zeros(len(levels), dtype=torch.float64).index_add(0, level_of, share)
    total = float(share.sum()) or 1.0
    middles = (of_levels.cumsum(0) - of_levels / 2) / total
    band_of = (middles * bands).long().clamp(max=bands - 1)[level_of]
    of_bands = torch.zeros(bands, dtype=torch.float64).index_add(0, band_of, share)
    ends = (budget * of_bands.cumsum(0) / total).round().long()
    taken = torch.zeros(len(scores), dtype=torch.bool)
    for band, count in enumerate(ends.diff(prepend=ends.new_zeros(1)).tolist()):
        rows, of_band = (band_of[group_of] == band).nonzero().flatten(), band_of == band
        parts = share[of_band] / of_bands[band] if count else share[of_band]
        within = dict(zip(names[of_band].tolist(), parts.tolist(), strict=True))
        taken[rows[quota_sample(scores[rows], groups[rows], within, count, least=0)]] = True
    rest = (~taken).nonzero().flatten()
    taken[rest[quota_sample(scores[rest], groups[rest], shares, budget - int(taken.sum()), least=0)]] = True
    rows = taken.nonzero().flatten()
    return rows[scores[rows].double().argsort(descending=True, stable=True)]


def _place_in_group(group_of: Tensor) -> Tensor:
    """How many earlier ones are of the same group: [n]."""
    by_group = group_of.argsort(stable=True)
    sizes = torch.bincount(group_of)
    starts = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    places = torch.empty_like(group_of)
    places[by_group] = torch.arange(len(group_of)) - starts
    return places
