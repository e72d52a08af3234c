"""Influence of the surrogate, as many of a target as validation has of it (Eq. 5-11 of DEALRec, arXiv 2401.17197)."""

import polars as pl
import torch

from dealrec.columns import INFLUENCE, TARGET, VALID_SHARE
from dealrec.selection.methods.method import selection
from dealrec.selection.methods.spread import Spread, spread_reasons, spread_sample

SIGNALS = (INFLUENCE, TARGET, VALID_SHARE)


def select(
    signals: pl.DataFrame, budget: int, generator: torch.Generator, *, spread: Spread = "quota", share: float = 0.1
) -> pl.DataFrame:
    """The largest influence. spread, share: see `spread_sample`."""
    scores = signals[INFLUENCE].to_torch()
    rows = spread_sample(signals, scores, budget, generator, spread=spread, share=share)
    return selection(signals, rows, scores, spread_reasons(signals, rows, spread=spread))
