"""Influence alone, every stratum of it covered (Algorithm 2 of DEALRec, arXiv 2401.17197)."""

import polars as pl
import torch

from dealrec.columns import INFLUENCE
from dealrec.selection import coverage_sample
from dealrec.selection.methods.method import selection

SIGNALS = (INFLUENCE,)


def select(signals: pl.DataFrame, budget: int, generator: torch.Generator, *, strata: int = 50) -> pl.DataFrame:
    """strata: of equal width, of which each gives its share."""
    influence = signals[INFLUENCE].to_torch()
    rows = coverage_sample(influence, budget, strata=strata, generator=generator)
    return selection(signals, rows, influence, "of a stratum of influence")
