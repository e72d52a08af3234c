"""Samples: what a user had interacted with, and the item that came next."""

from __future__ import annotations

from typing import Literal

import polars as pl

from dealrec.columns import HISTORY, ITEM, POSITION, SAMPLE, TARGET, TIMESTAMP, USER

Targets = Literal["first", "last", "all"]

_ROW, _FIRST, _STOP = "row", "first", "stop"  # a sample's history is the rows first, ..., stop - 1
_TARGET = "may be a target"


def training_samples(
    train: pl.DataFrame,
    *,
    samples_per_user: int,
    max_history: int,
    among: pl.DataFrame | None = None,
    newest: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Make samples of each user's last `samples_per_user` training items that have an item before them.

    train: user_id, item_id, position, in any order. among: the interactions that may be targets, a part of `train`;
    None: all. newest: only the samples whose targets are among these, under the ids that they have among all. Returns
    sample_id (Int64, 0..n-1, in the order of user and position), user_id, history (the most recent `max_history` items
    at most, oldest first) and target, and the target's timestamp where `train` has one.

    >>> train = pl.DataFrame({USER: [1, 1, 1, 2], ITEM: [7, 8, 9, 7], POSITION: [0, 1, 2, 0]})
    >>> training_samples(train, samples_per_user=2, max_history=1).rows()
    [(0, 1, [7], 8), (1, 1, [8], 9)]
    """
    ordered = train.sort(USER, POSITION).with_row_index(_ROW).with_columns(pl.col(_ROW).cast(pl.Int64))
    start, end = pl.col(_ROW).min().over(USER), pl.col(_ROW).max().over(USER)
    targets = ordered.filter((pl.col(_ROW) > start) & (pl.col(_ROW) > end - samples_per_user))
    if among is not None:
        targets = targets.join(among, on=[USER, POSITION], how="semi", maintain_order="left")
    starts = ordered.group_by(USER).agg(pl.col(_ROW).min().alias(_FIRST))
    spans = targets.join(starts, on=USER, how="left", maintain_order="left").rename({ITEM: TARGET, _ROW: _STOP})
    samples = _with_history(spans, ordered[ITEM], max_history=max_history)
    if newest is None:
        return samples
    place = spans.select(USER, POSITION).with_row_index(SAMPLE).join(newest, on=[USER, POSITION], how="semi")
    return samples.filter(pl.col(SAMPLE).is_in(place[SAMPLE].implode()))


def held_out_samples(
    earlier: pl.DataFrame, held_out: pl.DataFrame, *, max_history: int, targets: Targets = "first"
) -> pl.DataFrame:
    """Make samples whose targets are held-out items and whose histories are all that the user had before.

    Both tables: user_id, item_id, position, in any order. targets: of each user the first held-out item, the last, or
    all (Gusak et al., arXiv 2507.16289, compare these); held-out items before the target belong to its history. A
    held-out item of null is none that can be recommended: it is in no history, and first and last pass it over where
    the user has another. A target without history makes no sample. Returns the columns of `training_samples`, and the
    target's position, in the order of user and position.

    >>> earlier = pl.DataFrame({USER: [1, 1], ITEM: [7, 8], POSITION: [0, 1]})
    >>> held_out = pl.DataFrame({USER: [1, 1, 1, 2], ITEM: [None, 9, 5, 7], POSITION: [2, 3, 4, 0]})
    >>> held_out_samples(earlier, held_out, max_history=50).rows()
    [(0, 1, [7, 8], 9, 3)]
    >>> held_out_samples(earlier, held_out, max_history=50, targets="all").rows()
    [(0, 1, [7, 8], None, 2), (1, 1, [7, 8], 9, 3), (2, 1, [7, 8, 9], 5, 4)]
    """
    parts = [earlier.with_columns(pl.lit(False).alias(_TARGET)), held_out.with_columns(pl.lit(True).alias(_TARGET))]
    ordered = pl.concat(parts, how="diagonal").sort(USER, POSITION)
    known = ordered[ITEM].is_not_null().cast(pl.Int64)
    ordered = ordered.with_columns((known.cum_sum() - known).alias(_STOP))
    ordered = ordered.with_columns(pl.col(_STOP).min().over(USER).alias(_FIRST))
    chosen = ordered.filter(_TARGET)
    if targets != "all":
        chosen = chosen.sort(USER, pl.col(ITEM).is_null(), POSITION, descending=[False, False, targets == "last"])
        chosen = chosen.unique(USER, keep="first", maintain_order=True)
    spans = chosen.filter(pl.col(_STOP) > pl.col(_FIRST)).rename({ITEM: TARGET})
    samples = _with_history(spans, ordered[ITEM].drop_nulls(), max_history=max_history)
    return samples.with_columns(spans[POSITION])


def _with_history(spans: pl.DataFrame, items: pl.Series, *, max_history: int) -> pl.DataFrame:
    # Only the rows that are kept are ever listed: memory stays at samples x max_history, however long the users.
    first = pl.max_horizontal(pl.col(_FIRST), pl.col(_STOP) - max_history)
    time = [TIMESTAMP] if TIMESTAMP in spans.columns else []
    numbered = spans.select(pl.int_range(pl.len(), dtype=pl.Int64).alias(SAMPLE), USER, TARGET, *time, _STOP, first)
    flat = numbered.select(SAMPLE, pl.int_ranges(_FIRST, _STOP).alias(_ROW)).explode(_ROW)
    flat = flat.select(SAMPLE, items.gather(flat[_ROW]).alias(HISTORY))
    histories = flat.group_by(SAMPLE, maintain_order=True).agg(HISTORY)
    joined = numbered.join(histories, on=SAMPLE, how="left", maintain_order="left")
    return joined.select(SAMPLE, USER, HISTORY, TARGET, *time)
