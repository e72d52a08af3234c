"""Ranking metrics per user, over the whole catalogue."""

from collections.abc import Sequence

import polars as pl

from dealrec.columns import ITEM, RANK, USER


def ranking_metrics(recommended: pl.DataFrame, relevant: pl.DataFrame, *, ks: Sequence[int]) -> pl.DataFrame:
    """Recall@K, NDCG@K and MRR@K of each user: user_id, then recall@K, ndcg@K and mrr@K for each K; sorted by user_id.

    recommended: user_id, item_id, rank (from 1, each once a user). relevant: user_id, item_id. Users are those
    of `relevant`; one without recommendations scores 0. Recall@K = relevant items in the first K / relevant
    items. NDCG@K = sum of 1 / log2(1 + rank) over those, divided by its value for a perfect ranking.
    MRR@K, whose mean over users is the mean reciprocal rank: 1 / rank of the first relevant item in the first K, or 0.

    >>> import polars as pl
    >>> recommended = pl.DataFrame({"user_id": [1, 1], "item_id": ["a", "b"], "rank": [1, 2]})
    >>> relevant = pl.DataFrame({"user_id": [1, 1], "item_id": ["b", "c"]})
    >>> ranking_metrics(recommended, relevant, ks=[2])["recall@2"].to_list()
    [0.5]
    """
    relevant = relevant.select(USER, ITEM).unique()
    hits = relevant.join(recommended.select(USER, ITEM, RANK), on=[USER, ITEM], how="left")
    hits = hits.sort(USER, RANK, ITEM)  # sums of floats depend on their order
    gain = 1 / (1 + pl.col(RANK)).log(2)
    columns = []
    for k in ks:
        hit = pl.col(RANK) <= k
        columns.append((hit.sum() / pl.len()).alias(f"recall@{k}"))
        columns.append((gain.filter(hit).sum() / _ideal(k)).alias(f"ndcg@{k}"))
        columns.append((1 / pl.col(RANK).filter(hit).min()).fill_null(0.0).alias(f"mrr@{k}"))
    return hits.group_by(USER, maintain_order=True).agg(columns)


def _ideal(k: int) -> pl.Expr:
    """Sum of 1 / log2(1 + rank) over ranks 1 .. min(k, relevant items)."""
    return (1 / (2 + pl.int_range(0, pl.len().clip(upper_bound=k))).log(2)).sum()
