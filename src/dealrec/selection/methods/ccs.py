"""Coverage-centric selection: the hardest dropped, then every stratum of difficulty (Zheng et al., ICLR 2023)."""

import polars as pl
import torch

from dealrec.columns import SURROGATE_LOSS
from dealrec.selection import coverage_sample, without_hardest
from dealrec.selection.methods.method import selection

SIGNALS = (SURROGATE_LOSS,)


def select(
    signals: pl.DataFrame, budget: int, generator: torch.Generator, *, beta: float = 0.1, strata: int = 50
) -> pl.DataFrame:
    """beta: the share with the highest loss of the surrogate that is dropped; strata: of equal width of that loss."""
    loss = signals[SURROGATE_LOSS].to_torch()
    kept = without_hardest(loss, share=min(beta, 1 - budget / len(signals)))
    places = coverage_sample(loss[kept], budget, strata=strata, generator=generator)
    return selection(signals, kept[places], loss, "of a stratum of difficulty")
