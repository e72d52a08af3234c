"""The nearest to the centres of clusters of users (the user level of TF-DCon, Wu et al., arXiv 2310.09874)."""

import polars as pl
import torch

from dealrec.columns import SURROGATE_STATE
from dealrec.selection.clusters import clusters_of
from dealrec.selection.methods.method import selection, top

SIGNALS = (SURROGATE_STATE,)


def select(signals: pl.DataFrame, budget: int, generator: torch.Generator) -> pl.DataFrame:
    """As many clusters of the surrogate's states as samples; of each the nearest to its centre, then the second, ...

    Of TF-DCon that is the choice alone: no text is written anew, and no user is made up.
    """
    labels, distances = clusters_of(signals[SURROGATE_STATE].to_torch(), budget, generator=generator)
    table = pl.DataFrame({"cluster": labels.numpy(), "distance": distances.numpy()})
    place = table.select(pl.col("distance").rank("ordinal").over("cluster")).to_series().to_torch().double()
    nearness = -(place + distances / (1 + distances))  # first by place within the cluster, then by distance
    return selection(signals, top(nearness, budget), -distances, "nearest to the centre of its users")
