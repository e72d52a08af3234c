"""Loss drops of recommender and surrogate by rank, as many of a target as validation has of it (arXiv 2510.00386)."""

import polars as pl
import torch

from dealrec.columns import LOSS_DROP, SURROGATE_LOSS_DROP, TARGET, TRAIN_SHARE, VALID_SHARE
from dealrec.selection import mean_rank
from dealrec.selection.methods.spread import SPREAD_SIGNALS, Spread, spread_selection

SIGNALS = (LOSS_DROP, SURROGATE_LOSS_DROP, TARGET, TRAIN_SHARE, VALID_SHARE)
OPTION_SIGNALS = SPREAD_SIGNALS


def select(
    signals: pl.DataFrame,
    budget: int,
    generator: torch.Generator,
    *,
    spread: Spread = "popularity-quota",
    share: float = 0.1,
) -> pl.DataFrame:
    """The largest mean rank of the two. spread, share: see `spread_sample`."""
    scores = mean_rank(signals[LOSS_DROP].to_torch(), signals[SURROGATE_LOSS_DROP].to_torch())
    return spread_selection(signals, scores, budget, generator, spread=spread, share=share)
