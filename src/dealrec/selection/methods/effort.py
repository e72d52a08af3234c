"""The plain top of the recommender's gradient norm (Eq. 12 of DEALRec, arXiv 2401.17197; GraNd of the recommender)."""

import polars as pl
import torch

from dealrec.columns import EFFORT
from dealrec.selection.methods.method import selection, top

SIGNALS = (EFFORT,)


def select(signals: pl.DataFrame, budget: int, generator: torch.Generator) -> pl.DataFrame:  # noqa: ARG001
    """The highest effort."""
    effort = signals[EFFORT].to_torch()
    return selection(signals, top(effort, budget), effort, "high effort")
