"""The middle of the recommender's loss: neither known already nor out of reach."""

import polars as pl
import torch

from dealrec.columns import LOSS
from dealrec.selection import mean_rank
from dealrec.selection.methods.method import selection, top

SIGNALS = (LOSS,)


def select(signals: pl.DataFrame, budget: int, generator: torch.Generator) -> pl.DataFrame:  # noqa: ARG001
    """Those nearest to the median by rank."""
    nearness = -(mean_rank(signals[LOSS].to_torch()) - 0.5).abs()
    return selection(signals, top(nearness, budget), nearness, "of middling loss")
