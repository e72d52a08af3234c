"""Latest window: a uniform draw among the newest samples."""

import polars as pl
import torch

from dealrec.columns import TIMESTAMP
from dealrec.selection import best_share_sample
from dealrec.selection.methods.method import selection

SIGNALS = (TIMESTAMP,)


def select(signals: pl.DataFrame, budget: int, generator: torch.Generator, *, share: float = 0.1) -> pl.DataFrame:
    """share: of the samples that is the window; those of one time enter it in an order drawn at random."""
    shuffled = torch.randperm(len(signals), generator=generator)
    times = signals[TIMESTAMP].cast(pl.Float64).to_torch()
    rows = shuffled[best_share_sample(times[shuffled], budget, share=share, generator=generator)]
    return selection(signals, rows, times, "of the latest window")
