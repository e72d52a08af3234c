"""How the data are best split, and how many samples will come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import polars as pl

from dealrec.columns import SPLIT, TIMESTAMP, USER
from dealrec.config import DataConfig
from dealrec.data.splits import Splits, split_by_column, split_by_time, split_leave_last_out
from dealrec.data.values import splits as read_splits
from dealrec.drafting.guessing import Roles
from dealrec.errors import DataError

FEW, SMALL_SHARE = 100, 0.1  # of test users: too few to tell arms apart, and most users would not count at all


@dataclass(frozen=True)
class Samples:
    """Samples of each part, before filters."""

    train: int
    valid: int
    test: int


@dataclass(frozen=True)
class SplitChoice:
    """A split. reason: None if it was given; samples: None where not all rows were read, or some are incomplete."""

    split: str
    reason: str | None
    samples: Samples | None


def choose_split(roles: Roles, data: DataConfig, *, said: bool) -> SplitChoice:
    """Choose the split: the one in the data; else by time, unless that leaves far too few users; else the last out.

    data: the shares are of there; said: the split is, too.
    """
    log = _log(roles)
    cut_in_time = partial(split_by_time, valid_share=data.valid_share, test_share=data.test_share)
    if said:
        cuts: dict[str, Callable[[pl.DataFrame], Splits]]
        cuts = {"column": split_by_column, "leave-last-out": split_leave_last_out, "time": cut_in_time}
        return SplitChoice(data.split, None, _samples(log, cuts[data.split]))
    if roles.interactions.format == "dealrec" or "split" in roles.chosen:
        return SplitChoice("column", "the data come split", _samples(log, split_by_column))
    last_out = _samples(log, split_leave_last_out)
    if "timestamp" not in roles.chosen or roles.chosen["timestamp"].ordinal:
        return SplitChoice("leave-last-out", "there is no time that could be compared between users", last_out)
    by_time = _samples(log, cut_in_time)
    if log is None:
        return SplitChoice("time", "there are times", None)
    users = log[USER].n_unique()
    tested = by_time.test if by_time and by_time.train and by_time.valid else 0
    too_few = tested < min(FEW, SMALL_SHARE * users) or not tested
    if too_few and last_out is not None and last_out.test > tested:
        left = f"a cut in time would leave {tested:,} of {users:,} users to test on, this leaves {last_out.test:,}"
        return SplitChoice("leave-last-out", left, last_out)
    return SplitChoice("time", f"there are times; {tested:,} of {users:,} users are left to test on", by_time)


def _log(roles: Roles) -> pl.DataFrame | None:
    """user_id, timestamp, and split where there is one, of all rows; None if not all are there or some lack a value."""
    if not roles.interactions.whole:
        return None
    if roles.interactions.format == "dealrec":
        return roles.interactions.table.frame.select(USER, TIMESTAMP, SPLIT)
    user, time, split = roles.chosen["user"], roles.chosen.get("timestamp"), roles.chosen.get("split")
    if any(option is not None and option.column.missing for option in (user, roles.chosen["item"], time)):
        return None
    if user.column.ids is None:
        return None
    order = pl.int_range(len(user.column.ids), eager=True)
    times = order if time is None or time.column.times is None else time.column.times
    log = pl.DataFrame({USER: user.column.ids, TIMESTAMP: times})
    return log if split is None else log.with_columns(read_splits(split.column.present))


def _samples(log: pl.DataFrame | None, cut: Callable[[pl.DataFrame], Splits]) -> Samples | None:
    """None too where the split leaves a part empty."""
    if log is None:
        return None
    try:
        parts = cut(log)
    except DataError:
        return None
    train, valid, test = (frame.group_by(USER).len() for frame in (parts.train, parts.valid, parts.test))
    earlier = pl.concat([train, valid]).select(USER).unique()
    return Samples(
        train.filter(pl.col("len") >= 2).height,
        valid.join(train, on=USER, how="semi").height,
        test.join(earlier, on=USER, how="semi").height,
    )
