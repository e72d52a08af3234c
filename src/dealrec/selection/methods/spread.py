"""How a selection is spread over targets, given a score."""

from typing import Literal

import polars as pl
import torch
from torch import Tensor

from dealrec.columns import TARGET, VALID_SHARE
from dealrec.formats import percent
from dealrec.selection import best_share_sample, quota_sample
from dealrec.selection.methods.method import selection, top

Spread = Literal["quota", "best-share", "top"]


def spread_sample(
    signals: pl.DataFrame,
    scores: Tensor,
    budget: int,
    generator: torch.Generator,
    *,
    spread: Spread = "quota",
    share: float = 0.1,
) -> Tensor:
    """Indices of the rows to take, the best first.

    spread: quota: the best of each target, as many as its share in validation (at least one); best-share: a uniform
    draw among the best `share`; top: the highest scores, whatever their targets.
    """
    if spread == "top":
        return top(scores, budget)
    if spread == "best-share":
        return best_share_sample(scores, budget, share=share, generator=generator)
    if spread != "quota":
        raise ValueError(f"spread {spread!r} is none of quota, best-share and top")
    targets = signals.select(TARGET, VALID_SHARE).unique()
    shares = dict(zip(targets[TARGET].to_list(), targets[VALID_SHARE].to_list(), strict=True))
    return quota_sample(scores, signals[TARGET].to_torch(), shares, budget)


def spread_reasons(signals: pl.DataFrame, rows: Tensor, *, spread: Spread) -> list[str]:
    """Why each of the rows, in their order, was taken."""
    if spread != "quota":
        return ["among the highest scores"] * len(rows)
    taken = signals.select(TARGET, VALID_SHARE)[rows.numpy()]
    place = taken.select(pl.int_range(1, pl.len() + 1).over(TARGET)).to_series().to_list()
    return [
        f"no. {number} of its target, {percent(share)} of validation"
        for number, share in zip(place, taken[VALID_SHARE].to_list(), strict=True)
    ]


def spread_selection(
    signals: pl.DataFrame, scores: Tensor, budget: int, generator: torch.Generator, *, spread: Spread, share: float
) -> pl.DataFrame:
    """What a method returns that ranks by a score and spreads as `spread_sample` does."""
    rows = spread_sample(signals, scores, budget, generator, spread=spread, share=share)
    return selection(signals, rows, scores, spread_reasons(signals, rows, spread=spread))
