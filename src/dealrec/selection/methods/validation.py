"""Random validation samples: what a sceptic would train on, since they are newer."""

import polars as pl
import torch

from dealrec.selection.methods.method import selection

SIGNALS = ()
CANDIDATES = "valid"


def select(signals: pl.DataFrame, budget: int, generator: torch.Generator) -> pl.DataFrame:
    """Draw without replacement."""
    rows = torch.randperm(len(signals), generator=generator)[:budget]
    return selection(signals, rows, torch.zeros(len(signals)), "drawn from validation")
