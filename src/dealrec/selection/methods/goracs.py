"""Optimal transport to validation, less gradient norms (GORACS, Mei et al., KDD 2025, arXiv 2506.04015)."""

import polars as pl
import torch

from dealrec.columns import EFFORT, TEXT_EMBEDDING
from dealrec.selection.methods.method import selection
from dealrec.selection.transport import transport_selection

SIGNALS = (TEXT_EMBEDDING, EFFORT)


def select(
    signals: pl.DataFrame,
    budget: int,
    generator: torch.Generator,
    *,
    valid: pl.DataFrame,
    weight: float = 0.3,
    validation: int = 512,
    exchanges: int = 100,
) -> pl.DataFrame:
    """Those that are transported to validation at the least cost; the score is minus the least cost of each.

    The cost of a candidate and a validation sample is the distance of their embeddings as a share of the largest, less
    `weight` times the candidate's effort as a share of the largest. validation: samples at most, drawn. exchanges: of
    one that is taken for another after the greedy choice, at most.
    """
    drawn = torch.randperm(len(valid), generator=generator)[:validation].sort().values
    distances = torch.cdist(signals[TEXT_EMBEDDING].to_torch().float(), valid[TEXT_EMBEDDING].to_torch().float()[drawn])
    effort = signals[EFFORT].to_torch()
    shares = effort / effort.max().clamp_min(1e-12)
    cost = distances / distances.max().clamp_min(1e-12) - weight * shares.unsqueeze(1).float()
    rows = transport_selection(cost, budget, exchanges=exchanges)
    return selection(signals, rows, -cost.min(1).values, "near what validation holds, and of a large gradient")
