"""Active users and all clusters of users, no user twice (the sampling of RecRanker, Luo et al., arXiv 2312.16018)."""

import polars as pl
import torch

from dealrec.columns import HISTORY_LENGTH, SURROGATE_STATE
from dealrec.selection.clusters import clusters_of
from dealrec.selection.methods.method import selection

SIGNALS = (SURROGATE_STATE, HISTORY_LENGTH)


def select(signals: pl.DataFrame, budget: int, generator: torch.Generator, *, clusters: int = 50) -> pl.DataFrame:
    """Half with odds by the logarithm of the history's length, half uniformly from each cluster of states in turn.

    The paper lowers the odds of what both halves would take; here the second leaves out what the first took.
    """
    odds = signals[HISTORY_LENGTH].to_torch().double().log1p()
    active = torch.multinomial(odds + 1e-9, budget - budget // 2, generator=generator)
    labels, _ = clusters_of(signals[SURROGATE_STATE].to_torch(), clusters, generator=generator)
    others = torch.randperm(len(signals), generator=generator)
    others = others[~torch.isin(others, active)]
    turn = pl.DataFrame({"cluster": labels[others].numpy()}).select(pl.int_range(pl.len()).over("cluster"))
    in_turn = others[turn.to_series().to_torch().argsort(stable=True)]
    rows = torch.cat([active, in_turn[: budget // 2]])
    reasons = ["an active user"] * len(active) + ["of its cluster of users"] * (budget // 2)
    return selection(signals, rows, odds, reasons)
