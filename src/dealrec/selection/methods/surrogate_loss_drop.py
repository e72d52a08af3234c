"""The surrogate's loss drop, as many of a target as validation has of it (Train-on-Validation, arXiv 2510.00386)."""

import polars as pl
import torch

from dealrec.columns import SURROGATE_LOSS_DROP, TARGET, TRAIN_SHARE, VALID_SHARE
from dealrec.selection.methods.spread import SPREAD_SIGNALS, Spread, spread_selection

SIGNALS = (SURROGATE_LOSS_DROP, TARGET, TRAIN_SHARE, VALID_SHARE)
OPTION_SIGNALS = SPREAD_SIGNALS


def select(
    signals: pl.DataFrame,
    budget: int,
    generator: torch.Generator,
    *,
    spread: Spread = "popularity-quota",
    share: float = 0.1,
) -> pl.DataFrame:
    """The largest loss drop. spread, share: see `spread_sample`."""
    scores = signals[SURROGATE_LOSS_DROP].to_torch()
    return spread_selection(signals, scores, budget, generator, spread=spread, share=share)
