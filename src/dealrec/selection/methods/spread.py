"""How a selection is spread over targets, given a score."""

from typing import Literal

import polars as pl
import torch
from torch import Tensor

from dealrec.columns import CLUSTER_SHARE, TARGET, TARGET_CLUSTER, TRAIN_SHARE, VALID_SHARE
from dealrec.formats import percent
from dealrec.selection import banded_quota_sample, best_share_sample, quota_sample
from dealrec.selection.methods.method import selection, top

Spread = Literal["quota", "popularity-quota", "cluster-quota", "best-share", "top"]
_OF_TARGET = (TARGET, VALID_SHARE, "target")
_GROUPS = {
    "quota": _OF_TARGET,
    "popularity-quota": _OF_TARGET,
    "cluster-quota": (TARGET_CLUSTER, CLUSTER_SHARE, "cluster"),
}
SPREAD_SIGNALS = {"spread": {"cluster-quota": (TARGET_CLUSTER, CLUSTER_SHARE)}}  # beside those of the data


def spread_sample(
    signals: pl.DataFrame,
    scores: Tensor,
    budget: int,
    generator: torch.Generator,
    *,
    spread: Spread = "popularity-quota",
    share: float = 0.1,
) -> Tensor:
    """Indices of the rows to take, the best first.

    spread: popularity-quota: the best of each target, as many as its share in validation, and of twenty bands of the
    targets' popularity in training each its share in validation, or popular ones would be too few; quota: the same
    without bands, at least one of each target; cluster-quota: as quota, of clusters of targets whose titles are alike,
    for data where targets hardly repeat; best-share: a uniform draw among the best `share`; top: the highest scores,
    whatever their targets.
    """
    if spread == "top":
        return top(scores, budget)
    if spread == "best-share":
        return best_share_sample(scores, budget, share=share, generator=generator)
    if spread not in _GROUPS:
        raise ValueError(f"spread {spread!r} is none of {', '.join(_GROUPS)}, best-share and top")
    group, share_of, _ = _GROUPS[spread]
    shares = dict(signals.select(group, share_of).unique().iter_rows())
    if spread == "popularity-quota":
        popularity = dict(signals.select(group, TRAIN_SHARE).unique().iter_rows())
        return banded_quota_sample(scores, signals[group].to_torch(), shares, popularity, budget)
    return quota_sample(scores, signals[group].to_torch(), shares, budget)


def spread_reasons(signals: pl.DataFrame, rows: Tensor, *, spread: Spread) -> list[str]:
    """Why each of the rows, in their order, was taken."""
    if spread not in _GROUPS:
        return ["among the highest scores"] * len(rows)
    group, share_of, name = _GROUPS[spread]
    groups = signals.select(group, share_of)[rows.numpy()]
    place = groups.select(pl.int_range(1, pl.len() + 1).over(group)).to_series().to_list()
    return [
        f"no. {number} of its {name}, {percent(share)} of validation"
        for number, share in zip(place, groups[share_of].to_list(), strict=True)
    ]


def spread_selection(
    signals: pl.DataFrame, scores: Tensor, budget: int, generator: torch.Generator, *, spread: Spread, share: float
) -> pl.DataFrame:
    """What a method returns that ranks by a score and spreads as `spread_sample` does."""
    rows = spread_sample(signals, scores, budget, generator, spread=spread, share=share)
    return selection(signals, rows, scores, spread_reasons(signals, rows, spread=spread))
