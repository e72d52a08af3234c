"""Coverage before and after: how all samples, the pool and the selected spread over users, items, time, categories."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dealrec.columns import (
    CATEGORY,
    HISTORY,
    ITEM,
    POSITION,
    SAMPLE,
    TARGET,
    TIMESTAMP,
    TRAIN_COUNT,
    USER,
)
from dealrec.config import Config
from dealrec.engine.run_directory import Run
from dealrec.formats import cut, number
from dealrec.reporting.table import TEXT_KEPT
from dealrec.reporting.timestamps import moment, moment_format, timestamps

BUCKETS = 5
ACTIVITY = "user_interactions"
_TIMES = {
    "moments": "Time of the target",
    "rows": "Row of the target in the file",
    "places": "Position of the target within its user",
}
LARGEST = 12  # categories that have a line of their own


@dataclass(frozen=True)
class Bucket:
    """A range of values, or a category. shares: of each group (all samples, the pool, the selected) that is in it."""

    label: str
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Spread:
    """How the groups spread over the buckets of one quantity.

    categories: all there are among the samples, the largest first; empty for what is no category.
    """

    name: str
    note: str
    buckets: tuple[Bucket, ...]
    categories: tuple[Bucket, ...] = ()

    @property
    def widest(self) -> float:
        """The largest share."""
        return max(share for bucket in self.buckets for share in bucket.shares)

    def lost(self, place: int) -> list[str]:
        """The categories of which the group at that place has no sample, the largest first."""
        return [category.label for category in self.categories if not category.shares[place]]


@dataclass(frozen=True)
class Group:
    """A set of samples, and how many different users and targets it touches."""

    name: str
    samples: int
    users: int
    targets: int


def upper_ends(values: NDArray[np.float64], *, most: int = BUCKETS) -> NDArray[np.float64]:
    """Upper ends (inclusive, ascending) of at most `most` buckets with about equally many values each.

    Each end is one of the values, so no bucket is empty; equal values share a bucket, so ties make fewer
    buckets. Where there are no more than `most` different values, each has its own.

    >>> upper_ends(np.arange(10.0), most=2).tolist(), upper_ends(np.array([1.0, 1, 1, 1, 9]), most=2).tolist()
    ([4.0, 9.0], [1.0, 9.0])
    """
    distinct = np.unique(values)
    if len(distinct) <= most:
        return distinct
    shares = np.arange(1, most + 1) / most
    return np.unique(np.quantile(values, shares, method="inverted_cdf"))


def bucket_shares(values: NDArray[np.float64], ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the values in each bucket (ends[i - 1], ends[i]]; zeros if there are none.

    >>> bucket_shares(np.array([1.0, 2, 3, 9]), np.array([2.0, 9.0])).tolist()
    [0.5, 0.5]
    """
    counts = np.bincount(np.searchsorted(ends, values), minlength=len(ends))[: len(ends)]
    return counts / max(1, len(values))


def sample_groups(run: Run[Config], samples: pl.DataFrame) -> Mapping[str, pl.DataFrame]:
    """All training samples, and as far as the run has come the pool and the selected."""
    groups = {"all": samples}
    if run.has("pool"):
        groups["pool"] = samples.join(run.table("pool/pool.parquet"), on=SAMPLE, how="semi")
    if run.has("select"):
        groups["selected"] = samples.join(run.table("select/selected.parquet"), on=SAMPLE, how="semi")
    return groups


def reach(groups: Mapping[str, pl.DataFrame]) -> list[Group]:
    """Samples, users and targets of each group."""
    return [Group(name, len(t), t[USER].n_unique(), t[TARGET].n_unique()) for name, t in groups.items()]


def spreads(run: Run[Config], groups: Mapping[str, pl.DataFrame]) -> list[Spread]:
    """Spread of the groups over users by activity, targets by popularity, time and, if there are any, categories."""
    items = run.table("data/items.parquet")
    quantities = sample_quantities(groups["all"], run.table("data/interactions-train.parquet"), items)
    kind = timestamps(run)
    rows = [
        ("Users by training interactions", ACTIVITY, "How active the sample's user is.", False),
        ("Targets by popularity", TRAIN_COUNT, "How many training interactions the target item has.", False),
        (_TIMES[kind], TIMESTAMP, "When the target was interacted with.", kind == "moments"),
    ]
    ranges = [_spread(name, note, column, quantities, groups, moments) for name, column, note, moments in rows]
    if "categories" not in run.facts("data"):
        return ranges
    categories = by_category(run.table("data/categories.parquet"), groups)
    return [*ranges, categories] if categories else ranges


def by_category(items: pl.DataFrame, groups: Mapping[str, pl.DataFrame], *, most: int = LARGEST) -> Spread | None:
    """Spread over the categories of the target; None where no sample's target has any.

    items: item_id and category, a list; those it lacks have none. groups: the first of them of all
    samples. A target of several categories counts for each, so the shares of a group can add up to more than 1.
    `most` categories have a bucket each; the others share one, as do the targets without any.
    """
    counts = _target_counts(groups)
    pairs = items.select(pl.col(ITEM).alias(TARGET), CATEGORY).explode(CATEGORY).drop_nulls().join(counts, on=TARGET)
    if pairs.is_empty():
        return None
    totals = pairs.group_by(CATEGORY).agg(pl.col(list(groups)).sum())
    totals = totals.sort(next(iter(groups)), CATEGORY, descending=[True, False])
    large = len(totals) if len(totals) <= most + 1 else most
    small = totals.slice(large)
    lines = [totals.head(large)]
    if len(small):
        targets = pairs.join(small, on=CATEGORY, how="semi").unique(TARGET)
        lines.append(_total(targets, f"other ({len(small):,} categories)", groups))
    without = counts.join(pairs, on=TARGET, how="anti")
    if len(without):
        lines.append(_total(without, "no category", groups))
    note = "What the target is, the largest category first."
    if pairs[TARGET].is_duplicated().any():
        note += " A target may be of several, so the shares can add up to more than 100%."
    return Spread("Targets by category", note, _buckets(pl.concat(lines), groups), _buckets(totals, groups))


def _target_counts(groups: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Each target with the number of samples that each group has of it."""
    samples, *_ = groups.values()
    counts = samples.select(TARGET).unique()
    for name, group in groups.items():
        counts = counts.join(group.group_by(TARGET).len(name), on=TARGET, how="left")
    return counts.fill_null(0)


def _total(targets: pl.DataFrame, label: str, groups: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    return targets.select(pl.lit(label).alias(CATEGORY), pl.col(list(groups)).sum())


def _buckets(totals: pl.DataFrame, groups: Mapping[str, pl.DataFrame]) -> tuple[Bucket, ...]:
    shares = totals.select(CATEGORY, *(pl.col(name) / max(1, len(group)) for name, group in groups.items()))
    return tuple(Bucket(cut(label, TEXT_KEPT), tuple(row)) for label, *row in shares.iter_rows())


def sample_quantities(samples: pl.DataFrame, train: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Give each training sample its user's activity, its target's popularity and its target's time.

    A user's samples, in the order of sample_id, have the last of the user's training items as targets.
    """
    users = train.group_by(USER).agg(pl.len().alias(ACTIVITY), pl.col(POSITION).max().alias("last"))
    popularity = items.select(pl.col(ITEM).alias(TARGET), TRAIN_COUNT)
    after = (pl.len() - 1 - pl.int_range(pl.len())).over(USER)  # the user's samples that follow
    table = samples.drop(HISTORY).sort(SAMPLE).join(users, on=USER, how="left", maintain_order="left")
    table = table.with_columns((pl.col("last") - after).alias(POSITION))
    table = table.join(train.select(USER, POSITION, TIMESTAMP), on=[USER, POSITION], how="left")
    return table.join(popularity, on=TARGET, how="left").select(SAMPLE, ACTIVITY, TRAIN_COUNT, TIMESTAMP)


def _spread(
    name: str, note: str, column: str, quantities: pl.DataFrame, groups: Mapping[str, pl.DataFrame], moments: bool
) -> Spread:
    def values_of(group: pl.DataFrame) -> NDArray[np.float64]:
        rows = quantities.join(group.select(SAMPLE), on=SAMPLE, how="semi")
        return rows[column].drop_nulls().to_numpy().astype(np.float64)

    values = values_of(groups["all"])
    ends = upper_ends(values)
    shares = np.stack([bucket_shares(values_of(group), ends) for group in groups.values()])
    labels = _labels(values, ends, moments=moments)
    buckets = (Bucket(label, tuple(map(float, column))) for label, column in zip(labels, shares.T, strict=True))
    return Spread(name, note, tuple(buckets))


def _labels(values: NDArray[np.float64], ends: NDArray[np.float64], *, moments: bool) -> list[str]:
    show: Callable[[float], str] = number
    style = moment_format(float(values.min()), float(values.max())) if moments and len(values) else None
    if style is not None:
        ticks, pattern = style

        def show(value: float) -> str:
            return moment(value, ticks, pattern)

    ordered = np.sort(values)
    starts = np.concatenate([[0], np.searchsorted(ordered, ends, side="right")[:-1]])
    pairs = [(show(float(ordered[start])), show(float(end))) for start, end in zip(starts, ends, strict=True)]
    return [low if low == high else f"{low} to {high}" for low, high in pairs]
