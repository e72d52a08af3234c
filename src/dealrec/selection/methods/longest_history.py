"""Longest histories first."""

import polars as pl
import torch

from dealrec.columns import HISTORY_LENGTH
from dealrec.selection.methods.method import selection, top

SIGNALS = (HISTORY_LENGTH,)


def select(signals: pl.DataFrame, budget: int, generator: torch.Generator) -> pl.DataFrame:
    """The longest; those of one length in an order drawn at random."""
    shuffled = torch.randperm(len(signals), generator=generator)
    lengths = signals[HISTORY_LENGTH].cast(pl.Float64).to_torch()
    return selection(signals, shuffled[top(lengths[shuffled], budget)], lengths, "a long history")
