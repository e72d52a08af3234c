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

    samples: of train, valid and test, before filters; empty where the split leaves a part empty; None where not all
    rows were read, or some are incomplete.
    """

    split: str
    reason: str | None
    samples: dict[str, int] | None


def choose_split(roles: Roles, data: DataConfig, *, said: bool) -> SplitChoice:
    """Choose the split: the one in the data; else by time, unless that leaves far too few users; else the last out.

    data: the shares are of there; said: the split is, too.
    """
    log, time = _log(roles), roles.chosen.get("timestamp")
    by_time = partial(split_by_time, valid_share=data.valid_share, test_share=data.test_share)
    cuts: dict[str, Callable[[pl.DataFrame], Splits]]
    cuts = {"column": split_by_column, "leave-last-out": split_leave_last_out, "time": by_time}
    samples = {split: _samples(log, cut) for split, cut in cuts.items()}
    if said:
        split, reason = data.split, None
    elif roles.interactions.format == "dealrec" or "split" in roles.chosen:
        split, reason = "column", "the data come split"
    elif time is None or (not time.profile.moments and is_order(time.profile, roles.chosen["user"].profile)):
        split, reason = "leave-last-out", "there is no time that could be compared between users"
    elif log is None:
        split, reason = "time", "there are times"
    else:
        users, in_time, last = log[USER].n_unique(), samples["time"] or {}, samples["leave-last-out"] or {}
        tested = in_time.get("test", 0) if all(in_time.values()) else 0
        split, reason = "time", f"there are times; {tested:,} of {users:,} users are left to test on"
        if tested < max(1, min(_FEW, _SMALL_SHARE * users)) and last.get("test", 0) > tested:
            left = f"this leaves {last['test']:,}"
            reason = f"a cut in time would leave {tested:,} of {users:,} users to test on, {left}"
            split = "leave-last-out"
    return SplitChoice(split, reason, samples[split])


def _log(roles: Roles) -> pl.DataFrame | None:
    """user_id, timestamp, and split where there is one, of all rows; None if not all are there or some lack a value."""
    table, chosen = roles.interactions.table, roles.chosen
    if not roles.interactions.whole:
        return None
    if roles.interactions.format == "dealrec":
        return table.frame.select(USER, TIMESTAMP, SPLIT)
    if any(chosen[role].profile.missing for role in ("user", "item", "timestamp") if role in chosen):
        return None
    order = pl.int_range(table.frame.height, eager=True)
    times = chosen["timestamp"].profile.times if "timestamp" in chosen else order
    log = pl.DataFrame({USER: chosen["user"].profile.ids, TIMESTAMP: times})
    return log.with_columns(read_splits(chosen["split"].profile.column)) if "split" in chosen else log


def _samples(log: pl.DataFrame | None, cut: Callable[[pl.DataFrame], Splits]) -> dict[str, int] | None:
    if log is None:
        return None
    try:
        parts = cut(log)
    except DataError:
        return {}
    train, valid, test = (frame.group_by(USER).len() for frame in (parts.train, parts.valid, parts.test))
    return {
        "train": train.filter(pl.col("len") >= 2).height,
        "valid": valid.join(train, on=USER, how="semi").height,
        "test": test.join(pl.concat([train, valid]), on=USER, how="semi").height,
    }
