"""Which interactions are for training, validation and testing, and which items there are.

Tables in, tables out. Within a user, interactions are in order of time; equal times keep the order of the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import polars as pl

from dealrec.columns import ITEM, ITEM_INDEX, POSITION, RATING, SPLIT, TIMESTAMP, TITLE, TRAIN_COUNT, USER
from dealrec.data.titles import clean
from dealrec.errors import DataError

Way = Literal["time", "column", "leave-last-out"]  # to split

LEAK = (
    "split 'leave-last-out': the training part holds interactions later than some of the test part,"
    " so the future leaks into training; results are comparable within this run only"
)


@dataclass(frozen=True)
class Splits:
    """The interactions of each part, ordered by user and, within the user, by time."""

    train: pl.DataFrame
    valid: pl.DataFrame
    test: pl.DataFrame

    def map(self, function: Callable[[pl.DataFrame], pl.DataFrame]) -> Splits:
        """Apply one function to each part."""
        return Splits(function(self.train), function(self.valid), function(self.test))


def min_rating(interactions: pl.DataFrame, *, minimum: float) -> pl.DataFrame:
    """Keep the interactions rated `minimum` or higher; DataError if none are, or none have ratings."""
    if RATING not in interactions.columns:
        raise DataError("data.min_rating is set, but the interactions have no ratings", "Set data.columns.rating.")
    rated = interactions.filter(pl.col(RATING) >= minimum)
    if rated.height == 0:
        raise DataError(f"no interaction is rated {minimum:g} or higher", "Lower data.min_rating.")
    return rated


def drop_repeats(
    interactions: pl.DataFrame, *, repeats: Literal["keep", "dedupe", "collapse", "first"], by_part: bool = False
) -> pl.DataFrame:
    """Drop interactions of a user with an item that they had before; the first of each stays.

    dedupe: those at the same time; such a pair would make a sample whose target ends its own history, which is how
    the log was written and not what anybody chose. collapse: those that follow one another, at whatever times, in the
    order of time. first: all. keep: none. by_part: the split column comes before time in a user's order.

    >>> log = pl.DataFrame({USER: [1] * 5, ITEM: [7, 8, 7, 7, 7], TIMESTAMP: [10, 10, 10, 20, 30]})
    >>> {how: drop_repeats(log, repeats=how)[ITEM].to_list() for how in ("dedupe", "collapse", "first")}
    {'dedupe': [7, 8, 7, 7], 'collapse': [7, 8, 7], 'first': [7, 8]}
    """
    if repeats == "keep":
        return interactions
    part = [pl.col(SPLIT).cast(pl.Enum(["train", "valid", "test"]))] if by_part else []
    ordered = interactions.sort(USER, *part, TIMESTAMP, maintain_order=True)
    if repeats == "collapse":
        return ordered.filter(pl.col(ITEM).ne_missing(pl.col(ITEM).shift()).over(USER))
    key = [USER, ITEM] if repeats == "first" else [USER, ITEM, TIMESTAMP]
    return ordered.unique(key, keep="first", maintain_order=True)


def split(
    interactions: pl.DataFrame,
    by: Way,
    *,
    valid_share: float,
    test_share: float,
) -> Splits:
    """Split in one of the ways below; the shares are those of a split by time. Raises DataError as they do."""
    if by == "column":
        return split_by_column(interactions)
    if by == "time":
        return split_by_time(interactions, valid_share=valid_share, test_share=test_share)
    return split_leave_last_out(interactions)


def split_by_time(interactions: pl.DataFrame, *, valid_share: float, test_share: float) -> Splits:
    """Cut at two points of global time: every training time < every validation time < every test time.

    The last `test_share` of the interactions are for testing, the `valid_share` before them for validation, at least
    one each; interactions at the very time of a cut all go to the later part, which may make it larger.
    Raises DataError if a part is left empty, as when all times are equal.

    >>> log = pl.DataFrame({USER: [1, 1, 2, 2], ITEM: [7, 8, 7, 9], TIMESTAMP: [10, 20, 20, 30]})
    >>> parts = split_by_time(log, valid_share=0.25, test_share=0.25)
    >>> [part[TIMESTAMP].to_list() for part in (parts.train, parts.valid, parts.test)]
    [[10], [20, 20], [30]]
    """
    times, rows = interactions[TIMESTAMP].sort(), interactions.height
    test_start = rows - max(1, round(rows * test_share))
    valid_start = test_start - max(1, round(rows * valid_share))
    if valid_start < 1:
        raise DataError(f"{rows:,} interactions are too few to split by time", "Use more data or smaller shares.")
    first_valid, first_test = times[valid_start], times[test_start]
    time = pl.col(TIMESTAMP)
    parts = Splits(
        _ordered(interactions.filter(time < first_valid)),
        _ordered(interactions.filter((time >= first_valid) & (time < first_test))),
        _ordered(interactions.filter(time >= first_test)),
    )
    remedy = "Too many interactions have the same time: use finer times, other shares, or another data.split."
    return _nonempty(parts, "train", "valid", "test", remedy=remedy)


def split_by_column(interactions: pl.DataFrame) -> Splits:
    """Split as the split column says; validation may be empty.

    Raises DataError if there is no such column, or nothing in it is for training or for testing.
    """
    if SPLIT not in interactions.columns:
        raise DataError("data.split is 'column', but the interactions have no split column", "Set data.columns.split.")
    parts = Splits(*(_ordered(interactions.filter(pl.col(SPLIT) == name)) for name in ("train", "valid", "test")))
    return _nonempty(parts, "train", "test", remedy="Mark some interactions so in the split column.")


def split_leave_last_out(interactions: pl.DataFrame) -> Splits:
    """Take each user's last interaction for testing, the one before for validation, the rest for training.

    Users with fewer than three interactions are for training only. DataError if no user has three.
    """
    ordered = _ordered(interactions)
    following = (pl.len() - 1 - pl.int_range(pl.len())).over(USER)  # interactions of the user that follow
    long = pl.len().over(USER) >= 3
    parts = Splits(
        ordered.filter(~long | (following >= 2)),
        ordered.filter(long & (following == 1)),
        ordered.filter(long & (following == 0)),
    )
    return _nonempty(
        parts, "train", "valid", "test", remedy="Leave-last-out needs users with three interactions or more."
    )


def final(parts: Splits) -> Splits:
    """All interactions for training; what was for testing, the newest, is what signals aim at; nothing is tested.

    >>> log = pl.DataFrame({USER: [1, 1, 2, 2], ITEM: [7, 8, 7, 9], TIMESTAMP: [10, 20, 20, 30]})
    >>> parts = final(split_by_time(log, valid_share=0.25, test_share=0.25))
    >>> [part[TIMESTAMP].to_list() for part in (parts.train, parts.valid, parts.test)]
    [[10, 20, 20, 30], [30], []]
    """
    return Splits(pl.concat([parts.train, parts.valid, parts.test]), parts.test, parts.test.head(0))


def split_warm(train: pl.DataFrame, *, share: float) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The earliest `share` of the training interactions, for a warm start, and the later ones.

    Interactions at the very time of the cut are later. With share 0 all are. Raises DataError if either is empty
    though the share is not 0.

    >>> log = pl.DataFrame({USER: [1, 1, 2], TIMESTAMP: [10, 30, 20]})
    >>> earlier, later = split_warm(log, share=0.5)
    >>> earlier[TIMESTAMP].to_list(), later[TIMESTAMP].to_list()
    ([10, 20], [30])
    """
    if not share:
        return train.clear(), train
    first_later = train[TIMESTAMP].sort()[min(len(train) - 1, round(len(train) * share))]
    earlier, later = train.filter(pl.col(TIMESTAMP) < first_later), train.filter(pl.col(TIMESTAMP) >= first_later)
    if earlier.is_empty():
        raise DataError("no interactions are left for the warm start", "Raise data.warm_share, or use finer times.")
    return earlier, later


def k_core(splits: Splits, k: int) -> Splits:
    """Drop users and items with fewer than `k` training interactions, repeatedly, until none are left.

    Validation and test keep the surviving users and items only, and have no say in who survives.
    Raises DataError if no training or no test interactions survive.
    """
    train, height = splits.train, -1
    while train.height != height:
        height = train.height
        train = train.filter((pl.len().over(USER) >= k) & (pl.len().over(ITEM) >= k))

    def survivors(part: pl.DataFrame) -> pl.DataFrame:
        of_users = part.join(train.select(USER).unique(), on=USER, how="semi", maintain_order="left")
        return of_users.join(train.select(ITEM).unique(), on=ITEM, how="semi", maintain_order="left")

    parts = Splits(train, survivors(splits.valid), survivors(splits.test)) if k else splits
    return _nonempty(parts, "train", "test", remedy=f"Lower data.k_core, which is {k}.")


def with_positions(splits: Splits) -> Splits:
    """Number each user's interactions from 0 on, over train, then valid, then test.

    Returns user_id, item_id, position (Int64), timestamp, and rating if there is one, sorted by user_id and position.
    """
    part = "part"
    parts = [splits.train, splits.valid, splits.test]
    joined = pl.concat([_ordered(frame).with_columns(pl.lit(i).alias(part)) for i, frame in enumerate(parts)])
    joined = joined.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).over(USER).alias(POSITION)).sort(USER, POSITION)
    names = [USER, ITEM, POSITION, TIMESTAMP, *([RATING] if RATING in joined.columns else [])]
    return Splits(*(joined.filter(pl.col(part) == i).select(names) for i in range(3)))


def catalogue(items: pl.DataFrame, train: pl.DataFrame, *, restrict: bool) -> pl.DataFrame:
    """List the items that can be recommended: those of the items table and those of the training part.

    Returns item_index (Int64, from 1, in the order of item_id), item_id, title and train_count (Int64). An item that
    the table lacks has its id as title. `restrict` keeps items with training interactions only, as after `k_core`.

    >>> items = pl.DataFrame({ITEM: [5, 3], TITLE: ["Five", "Three"]})
    >>> catalogue(items, pl.DataFrame({ITEM: [5, 9, 5]}), restrict=False).rows()
    [(1, 3, 'Three', 0), (2, 5, 'Five', 2), (3, 9, '9', 1)]
    """
    counts = train.group_by(ITEM).agg(pl.len().cast(pl.Int64).alias(TRAIN_COUNT))
    absent = absent_items(items, train)
    absent = absent.with_columns(clean(absent[ITEM].cast(pl.String)).alias(TITLE))
    table = pl.concat([items.select(ITEM, TITLE), absent]).join(counts, on=ITEM, how="left")
    table = table.with_columns(pl.col(TRAIN_COUNT).fill_null(0))
    if restrict:
        table = table.filter(pl.col(TRAIN_COUNT) > 0)
    index = pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias(ITEM_INDEX)
    return table.sort(ITEM).select(index, ITEM, TITLE, TRAIN_COUNT)


def absent_items(items: pl.DataFrame, train: pl.DataFrame) -> pl.DataFrame:
    """Return the item_ids, each once and sorted, that have training interactions but are not in the items table."""
    return train.select(ITEM).unique().join(items, on=ITEM, how="anti").sort(ITEM)


def _ordered(interactions: pl.DataFrame) -> pl.DataFrame:
    return interactions.sort(USER, TIMESTAMP, maintain_order=True)


def _nonempty(splits: Splits, *names: str, remedy: str) -> Splits:
    for name in names:
        if getattr(splits, name).height == 0:
            raise DataError(f"no interactions are left for {name}", remedy)
    return splits
