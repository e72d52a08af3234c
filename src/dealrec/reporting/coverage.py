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
from dealrec.reporting.numbers import moment, moments, number
from dealrec.reporting.runs import Run, times_are
from dealrec.reporting.table import cut

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


def groups(run: Run, samples: pl.DataFrame) -> Mapping[str, pl.DataFrame]:
    """All training samples, and as far as the run has come the pool and the selected."""
    found = {"all": samples}
    if run.has("effort"):
        found["pool"] = samples.join(run.table("effort/pool.parquet"), on=SAMPLE, how="semi")
    if run.has("select"):
        found["selected"] = samples.join(run.table("select/selected.parquet"), on=SAMPLE, how="semi")
    return found


def reach(found: Mapping[str, pl.DataFrame]) -> list[Group]:
    """Samples, users and targets of each group."""
    return [Group(name, len(t), t[USER].n_unique(), t[TARGET].n_unique()) for name, t in found.items()]


def spreads(run: Run, found: Mapping[str, pl.DataFrame]) -> list[Spread]:
    """Spread of the groups over users by activity, targets by popularity, time and, if there are any, categories."""
    items = run.table("data/items.parquet")
    described = describe(found["all"], run.table("data/interactions-train.parquet"), items)
    kind = times_are(run)
    made = [
        ("Users by training interactions", ACTIVITY, "How active the sample's user is.", False),
        ("Targets by popularity", TRAIN_COUNT, "How many training interactions the target item has.", False),
        (_TIMES[kind], TIMESTAMP, "When the target was interacted with.", kind == "moments"),
    ]
    ranges = [_spread(name, note, column, described, found, timed) for name, column, note, timed in made]
    if "categories" not in run.facts("data"):
        return ranges
    named = by_category(run.table("data/categories.parquet"), found)
    return [*ranges, named] if named else ranges


def by_category(items: pl.DataFrame, found: Mapping[str, pl.DataFrame], *, most: int = LARGEST) -> Spread | None:
    """Spread over the categories of the target; None where no sample's target has any.

    items: item_id and category, a list; those it lacks have none. found: the groups, the first of them of all
    samples. A target of several categories counts for each, so the shares of a group can add up to more than 1.
    `most` categories have a bucket each; the others share one, as do the targets without any.
    """
    counts = _target_counts(found)
    named = items.select(pl.col(ITEM).alias(TARGET), CATEGORY).explode(CATEGORY).drop_nulls().join(counts, on=TARGET)
    if named.is_empty():
        return None
    totals = named.group_by(CATEGORY).agg(pl.col(list(found)).sum())
    totals = totals.sort(next(iter(found)), CATEGORY, descending=[True, False])
    shown = len(totals) if len(totals) <= most + 1 else most
    small = totals.slice(shown)
    lines = [totals.head(shown)]
    if len(small):
        several = named.join(small, on=CATEGORY, how="semi").unique(TARGET)
        lines.append(_total(several, f"other ({len(small):,} categories)", found))
    without = counts.join(named, on=TARGET, how="anti")
    if len(without):
        lines.append(_total(without, "no category", found))
    note = "What the target is, the largest category first."
    if named[TARGET].is_duplicated().any():
        note += " A target may be of several, so the shares can add up to more than 100%."
    return Spread("Targets by category", note, _buckets(pl.concat(lines), found), _buckets(totals, found))


def _target_counts(found: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Each target with the number of samples that each group has of it."""
    everyone, *_ = found.values()
    counts = everyone.select(TARGET).unique()
    for name, group in found.items():
        counts = counts.join(group.group_by(TARGET).len(name), on=TARGET, how="left")
    return counts.fill_null(0)


def _total(targets: pl.DataFrame, label: str, found: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    return targets.select(pl.lit(label).alias(CATEGORY), pl.col(list(found)).sum())


def _buckets(totals: pl.DataFrame, found: Mapping[str, pl.DataFrame]) -> tuple[Bucket, ...]:
    shares = totals.select(CATEGORY, *(pl.col(name) / max(1, len(group)) for name, group in found.items()))
    return tuple(Bucket(cut(label), tuple(of)) for label, *of in shares.iter_rows())


def describe(samples: pl.DataFrame, train: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Give each training sample its user's activity, its target's popularity and its target's time.

    A user's samples, in the order of sample_id, have the last of the user's training items as targets.
    """
    users = train.group_by(USER).agg(pl.len().alias(ACTIVITY), pl.col(POSITION).max().alias("last"))
    popular = items.select(pl.col(ITEM).alias(TARGET), TRAIN_COUNT)
    after = (pl.len() - 1 - pl.int_range(pl.len())).over(USER)  # the user's samples that follow
    placed = samples.drop(HISTORY).sort(SAMPLE).join(users, on=USER, how="left", maintain_order="left")
    placed = placed.with_columns((pl.col("last") - after).alias(POSITION))
    placed = placed.join(train.select(USER, POSITION, TIMESTAMP), on=[USER, POSITION], how="left")
    return placed.join(popular, on=TARGET, how="left").select(SAMPLE, ACTIVITY, TRAIN_COUNT, TIMESTAMP)


def _spread(
    name: str, note: str, column: str, described: pl.DataFrame, found: Mapping[str, pl.DataFrame], timed: bool
) -> Spread:
    def of(group: pl.DataFrame) -> NDArray[np.float64]:
        kept = described.join(group.select(SAMPLE), on=SAMPLE, how="semi")
        return kept[column].drop_nulls().to_numpy().astype(np.float64)

    values = of(found["all"])
    ends = upper_ends(values)
    shares = np.stack([bucket_shares(of(group), ends) for group in found.values()])
    labels = _labels(values, ends, timed=timed)
    return Spread(
        name,
        note,
        tuple(Bucket(label, tuple(map(float, column))) for label, column in zip(labels, shares.T, strict=True)),
    )


def _labels(values: NDArray[np.float64], ends: NDArray[np.float64], *, timed: bool) -> list[str]:
    show: Callable[[float], str] = number
    read = moments(float(values.min()), float(values.max())) if timed and len(values) else None
    if read is not None:
        ticks, style = read

        def show(value: float) -> str:
            return moment(value, ticks, style)

    ordered = np.sort(values)
    starts = np.concatenate([[0], np.searchsorted(ordered, ends, side="right")[:-1]])
    pairs = [(show(float(ordered[start])), show(float(end))) for start, end in zip(starts, ends, strict=True)]
    return [low if low == high else f"{low} to {high}" for low, high in pairs]
