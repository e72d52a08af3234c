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


@dataclass(frozen=True)
class SplitChoice:
    """A split. reason: None if it was given.

    samples: of train, valid and test, before filters; None where the split leaves a part empty, or not all rows were
    read, or some are incomplete.
    """

    split: str
    reason: str | None
    samples: dict[str, int] | None


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
        return SplitChoice(split, reason, None if log is None else _samples(log, cuts[split]))

    if said:
        return choice(data.split, None)
    if roles.interactions.format == "dealrec" or "split" in roles.chosen:
        return choice("column", "the data come split")
    time = roles.chosen.get("timestamp")
    if time is None or (not time.profile.moments and is_order(time.profile, roles.chosen["user"].profile)):
        return choice("leave-last-out", "there is no time that could be compared between users")
    if log is None:
        return choice("time", "there are times")
    users, by_time = log[USER].n_unique(), choice("time", None)
    tested = by_time.samples["test"] if by_time.samples and all(by_time.samples.values()) else 0
    if tested < min(_FEW, _SMALL_SHARE * users) or not tested:
        last_out = choice("leave-last-out", None)
        if last_out.samples and last_out.samples["test"] > tested:
            left = f"this leaves {last_out.samples['test']:,}"
            reason = f"a cut in time would leave {tested:,} of {users:,} users to test on, {left}"
            return SplitChoice("leave-last-out", reason, last_out.samples)
    return SplitChoice("time", f"there are times; {tested:,} of {users:,} users are left to test on", by_time.samples)


def _log(roles: Roles) -> pl.DataFrame | None:
    """user_id, timestamp, and split where there is one, of all rows; None if not all are there or some lack a value."""
    if not roles.interactions.whole:
        return None
    if roles.interactions.format == "dealrec":
        return roles.interactions.table.frame.select(USER, TIMESTAMP, SPLIT)
    user, item, time, split = (roles.chosen.get(role) for role in ("user", "item", "timestamp", "split"))
    if any(option.profile.missing for option in (user, item, time) if option):
        return None
    ids = roles.chosen["user"].profile.ids
    log = pl.DataFrame({USER: ids, TIMESTAMP: time.profile.times if time else pl.int_range(len(ids), eager=True)})
    return log.with_columns(read_splits(split.profile.column)) if split else log


def _samples(log: pl.DataFrame, cut: Callable[[pl.DataFrame], Splits]) -> dict[str, int] | None:
    try:
        parts = cut(log)
    except DataError:
        return None
    train, valid, test = (frame.group_by(USER).len() for frame in (parts.train, parts.valid, parts.test))
    return {
        "train": train.filter(pl.col("len") >= 2).height,
        "valid": valid.join(train, on=USER, how="semi").height,
        "test": test.join(pl.concat([train, valid]), on=USER, how="semi").height,
    }
