"""EL2N: the largest error of the surrogate's prediction (Paul et al., NeurIPS 2021, arXiv 2107.07075)."""

import polars as pl
import torch

from dealrec.columns import SURROGATE_ERROR
from dealrec.selection.methods.method import selection, top

SIGNALS = (SURROGATE_ERROR,)


def select(signals: pl.DataFrame, budget: int, generator: torch.Generator) -> pl.DataFrame:  # noqa: ARG001
    """The largest error."""
    error = signals[SURROGATE_ERROR].to_torch()
    return selection(signals, top(error, budget), error, "the surrogate is far off")
