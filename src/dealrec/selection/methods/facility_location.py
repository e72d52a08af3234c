"""Diversity by text: that every candidate has one like it among the selected (facility location, Nemhauser 1978)."""

import polars as pl
import torch

from dealrec.columns import TEXT_EMBEDDING
from dealrec.selection.facility_location import facility_location
from dealrec.selection.methods.method import selection

SIGNALS = (TEXT_EMBEDDING,)


def select(signals: pl.DataFrame, budget: int, generator: torch.Generator, *, candidates: int = 20_000) -> pl.DataFrame:
    """Greedily; the score says how much is like it.

    candidates: drawn at random where there are more, as time grows with the square of their number.
    """
    drawn = torch.randperm(len(signals), generator=generator)[: max(budget, candidates)].sort().values
    rows, alone = facility_location(signals[TEXT_EMBEDDING].to_torch()[drawn], budget)
    scores = torch.zeros(len(signals)).index_put((drawn,), alone)
    return selection(signals, drawn[rows], scores, "like others that nothing selected was like")
