"""How a selection is spread over targets, given a score."""

from typing import Literal

import polars as pl
import torch
from torch import Tensor

from dealrec.columns import TARGET, VALID_SHARE
from dealrec.selection import best_share_sample, quota_sample
from dealrec.selection.methods.method import top

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
