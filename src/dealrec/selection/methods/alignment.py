"""Alignment of gradients with validation, as many of a target as validation has of it (LESS, arXiv 2402.04333)."""

import polars as pl
import torch

from dealrec.columns import ALIGNMENT, TARGET, TRAIN_SHARE, VALID_SHARE
from dealrec.selection.methods.spread import SPREAD_SIGNALS, Spread, spread_selection

SIGNALS = (ALIGNMENT, TARGET, TRAIN_SHARE, VALID_SHARE)
OPTION_SIGNALS = SPREAD_SIGNALS


def select(
    signals: pl.DataFrame,
    budget: int,
    generator: torch.Generator,
    *,
    spread: Spread = "popularity-quota",
    share: float = 0.1,
) -> pl.DataFrame:
    """The largest product with the validation gradient. spread, share: see `spread_sample`."""
    scores = signals[ALIGNMENT].to_torch()
    return spread_selection(signals, scores, budget, generator, spread=spread, share=share)
