"""Influence of the surrogate, as many of a target as validation has of it (Eq. 5-11 of DEALRec, arXiv 2401.17197)."""

import polars as pl
import torch

from dealrec.columns import INFLUENCE, TARGET, TRAIN_SHARE, VALID_SHARE
from dealrec.selection.methods.spread import SPREAD_SIGNALS, Spread, spread_selection

SIGNALS = (INFLUENCE, TARGET, TRAIN_SHARE, VALID_SHARE)
OPTION_SIGNALS = SPREAD_SIGNALS


def select(
    signals: pl.DataFrame,
    budget: int,
    generator: torch.Generator,
    *,
    spread: Spread = "popularity-quota",
    share: float = 0.1,
) -> pl.DataFrame:
    """The largest influence. spread, share: see `spread_sample`."""
    scores = signals[INFLUENCE].to_torch()
    return spread_selection(signals, scores, budget, generator, spread=spread, share=share)
