"""Most recent: the samples whose targets are the newest."""

import polars as pl
import torch

from dealrec.columns import TIMESTAMP
from dealrec.selection.methods.method import selection, top

SIGNALS = (TIMESTAMP,)


def select(signals: pl.DataFrame, budget: int, generator: torch.Generator) -> pl.DataFrame:
    """The newest; those of one time in an order drawn at random."""
    shuffled = torch.randperm(len(signals), generator=generator)
    times = signals[TIMESTAMP].cast(pl.Float64).to_torch()
    return selection(signals, shuffled[top(times[shuffled], budget)], times, "among the newest")
