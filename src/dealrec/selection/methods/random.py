"""Uniform draw: what every other method has to beat."""

import polars as pl
import torch

from dealrec.selection.methods.method import selection

SIGNALS = ()


def select(signals: pl.DataFrame, budget: int, generator: torch.Generator) -> pl.DataFrame:
    """Draw without replacement."""
    rows = torch.randperm(len(signals), generator=generator)[:budget]
    return selection(signals, rows, torch.zeros(len(signals)), "drawn at random")
