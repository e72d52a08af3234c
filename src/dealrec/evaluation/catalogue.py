"""Beyond accuracy: what is recommended to all users together."""

from collections.abc import Sequence

import polars as pl

from dealrec.columns import ITEM, RANK, USER

_SHARE = "share"


def catalogue_metrics(
    recommended: pl.DataFrame, catalogue: pl.DataFrame, interactions: pl.DataFrame, *, ks: Sequence[int]
) -> dict[str, float]:
    """Catalogue coverage and average recommendation popularity: coverage@K and popularity@K for each K.

    recommended: user_id, item_id, rank (from 1). catalogue: item_id of all items that could be recommended.
    interactions: item_id, a row for each training interaction. coverage@K: share of the catalogue's items that are
    among the first K of at least one user (Ge, Delgado-Battenfeld & Jannach, RecSys 2010). popularity@K: mean over
    users of the mean, over their first K items, of an item's share of the training interactions (average
    recommendation popularity: Yin et al., VLDB 2012, there with counts); users without recommendations are left out.
    Both lie in [0, 1]. Raises ValueError if a table is empty or an item that is not in the catalogue is recommended.

    >>> import polars as pl
    >>> recommended = pl.DataFrame({"user_id": [1, 2], "item_id": ["a", "a"], "rank": [1, 1]})
    >>> catalogue = pl.DataFrame({"item_id": ["a", "b"]})
    >>> catalogue_metrics(recommended, catalogue, pl.DataFrame({"item_id": ["a", "b", "a", "b"]}), ks=[1])
    {'coverage@1': 0.5, 'popularity@1': 0.5}
    """
    items = catalogue.select(ITEM).unique()
    if recommended.is_empty() or items.is_empty() or interactions.is_empty():
        raise ValueError("recommended, catalogue and interactions must not be empty")
    unknown = recommended.join(items, on=ITEM, how="anti")[ITEM].head(5).to_list()
    if unknown:
        raise ValueError(f"items {unknown} are recommended but not in the catalogue")
    shares = interactions.group_by(ITEM).agg((pl.len() / len(interactions)).alias(_SHARE))
    ranked = recommended.join(shares, on=ITEM, how="left").with_columns(pl.col(_SHARE).fill_null(0.0))
    ranked = ranked.sort(USER, RANK)  # sums of floats depend on their order
    metrics = {}
    for k in ks:
        first = ranked.filter(pl.col(RANK) <= k)
        metrics[f"coverage@{k}"] = first[ITEM].n_unique() / len(items)
        means = first.group_by(USER, maintain_order=True).agg(pl.col(_SHARE).mean())
        metrics[f"popularity@{k}"] = float(means[_SHARE].to_numpy().mean())
    return metrics
