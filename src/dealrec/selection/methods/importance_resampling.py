"""Importance resampling towards validation by target and history (DSIR, Xie et al., NeurIPS 2023, arXiv 2302.03169)."""

from typing import Literal

import numpy as np
import polars as pl
import torch

from dealrec.columns import HISTORY, SAMPLE, TARGET
from dealrec.selection.methods.method import selection, top

SIGNALS = (TARGET, HISTORY)


def select(
    signals: pl.DataFrame,
    budget: int,
    generator: torch.Generator,
    *,
    valid: pl.DataFrame,
    features: Literal["target", "target+history"] = "target",
    buckets: int = 10_000,
) -> pl.DataFrame:
    """Draw without replacement with weights p_valid / p_train over hashed features, by the Gumbel top-k trick.

    features: the target alone, or also each item of the history, as a feature of its own. buckets: that features are
    hashed into; each gets a pseudo-count of one.
    """
    if features not in ("target", "target+history"):
        raise ValueError(f"features {features!r} is neither target nor target+history")
    rows = [_buckets(table, features, buckets) for table in (signals, valid)]
    counts = [np.bincount(table["bucket"].to_numpy(), minlength=buckets) + 1.0 for table in rows]
    train, aim = (np.log(count / count.sum()) for count in counts)
    weights = rows[0].with_columns(pl.Series("weight", (aim - train)[rows[0]["bucket"].to_numpy()]))
    sums = weights.group_by("row").agg(pl.col("weight").sum()).sort("row")["weight"].to_torch()
    uniform = torch.rand(len(signals), generator=generator, dtype=torch.float64).clamp_min(1e-300)
    keys = sums - (-uniform.log()).log()
    return selection(signals, top(keys, budget), sums, "what validation has more of than training")


def _buckets(samples: pl.DataFrame, features: str, buckets: int) -> pl.DataFrame:
    """row, bucket of each feature of each sample. An item of the history is another feature than the same as target."""
    numbered = samples.sort(SAMPLE).with_row_index("row")
    parts = [numbered.select("row", pl.col(TARGET).mod(buckets).alias("bucket"))]
    if features == "target+history":
        items = numbered.select("row", pl.col(HISTORY)).explode(HISTORY).drop_nulls()
        hashed = (pl.col(HISTORY).cast(pl.UInt64) * 2_654_435_761 + 1_013_904_223).mod(buckets).cast(pl.Int64)
        parts.append(items.select("row", hashed.alias("bucket")))
    return pl.concat(parts)
