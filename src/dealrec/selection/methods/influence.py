"""The plain top of the surrogate's influence (Eq. 5-11 of DEALRec, arXiv 2401.17197)."""

import polars as pl
import torch

from dealrec.columns import INFLUENCE
from dealrec.selection.methods.method import selection, top

SIGNALS = (INFLUENCE,)


def select(signals: pl.DataFrame, budget: int, generator: torch.Generator) -> pl.DataFrame:  # noqa: ARG001
    """The highest influence."""
    influence = signals[INFLUENCE].to_torch()
    return selection(signals, top(influence, budget), influence, "high influence")
