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
from dealrec.drafting.guesses import Roles
from dealrec.drafting.options import is_order
from dealrec.errors import DataError

_FEW, _SMALL_SHARE = 100, 0.1  # of test users: too few to tell arms apart, and most users would not count at all


Samples = dict[str, int]  # of train, valid and test, before filters


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
    cuts: dict[str, Callable[[pl.DataFrame], Splits]] = {
        "column": split_by_column,
        "leave-last-out": split_leave_last_out,
        "time": partial(split_by_time, valid_share=data.valid_share, test_share=data.test_share),
    }

    def choice(split: str, reason: str | None) -> SplitChoice:
        return SplitChoice(split, reason, _samples(log, cuts[split]))

    if said:
        return choice(data.split, None)
    if roles.interactions.format == "dealrec" or "split" in roles.chosen:
        return choice("column", "the data come split")
    time = roles.chosen.get("timestamp")
    if time is None or (not time.profile.moments and is_order(time.profile, roles.chosen["user"].profile)):
        return choice("leave-last-out", "there is no time that could be compared between users")
    if log is None:
        return choice("time", "there are times")
    users, by_time, last_out = log[USER].n_unique(), _samples(log, cuts["time"]), _samples(log, split_leave_last_out)
    tested = by_time["test"] if by_time and by_time["train"] and by_time["valid"] else 0
    too_few = tested < min(_FEW, _SMALL_SHARE * users) or not tested
    if too_few and last_out is not None and last_out["test"] > tested:
        left = f"a cut in time would leave {tested:,} of {users:,} users to test on, this leaves {last_out['test']:,}"
        return SplitChoice("leave-last-out", left, last_out)
    return SplitChoice("time", f"there are times; {tested:,} of {users:,} users are left to test on", by_time)


def _log(roles: Roles) -> pl.DataFrame | None:
    """user_id, timestamp, and split where there is one, of all rows; None if not all are there or some lack a value."""
    if not roles.interactions.whole:
        return None
    if roles.interactions.format == "dealrec":
        return roles.interactions.table.frame.select(USER, TIMESTAMP, SPLIT)
    user, time, split = (roles.chosen.get(role) for role in ("user", "timestamp", "split"))
    needed = [option for option in (user, roles.chosen["item"], time) if option is not None]
    if user is None or user.profile.ids is None or any(option.profile.missing for option in needed):
        return None
    times = None if time is None else time.profile.times
    order = pl.int_range(user.profile.rows, eager=True)
    log = pl.DataFrame({USER: user.profile.ids, TIMESTAMP: order if times is None else times})
    return log if split is None else log.with_columns(read_splits(split.profile.column))


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
    return {
        "train": train.filter(pl.col("len") >= 2).height,
        "valid": valid.join(train, on=USER, how="semi").height,
        "test": test.join(earlier, on=USER, how="semi").height,
    }
