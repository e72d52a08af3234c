"""What the timestamps of a run are, and moments as people read them."""

from datetime import UTC, datetime, timedelta
from typing import Literal

import polars as pl

from dealrec.columns import TIMESTAMP, USER
from dealrec.config import Config
from dealrec.engine.run_directory import Run

Timestamps = Literal["moments", "rows", "places"]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def timestamps(run: Run[Config]) -> Timestamps:
    """What the timestamps are: moments, row numbers of the file, or places in each user's own sequence.

    Places begin at 0 or 1 for every user; moments of many users do not. Only moments can be compared between users.
    """
    if run.config.data.format == "dealrec":
        return "places"
    if run.config.data.columns.timestamp is None:
        return "rows"
    train = run.table("data/interactions-train.parquet")
    firsts = train.group_by(USER).agg(pl.col(TIMESTAMP).min())[TIMESTAMP]
    return "places" if len(firsts) > 1 and ((firsts == 0) | (firsts == 1)).all() else "moments"


def moment_format(low: float, high: float) -> tuple[int, str] | None:
    """Ticks per second and the format of times from `low` to `high`, or None if they are not times since 1970.

    What lies between 1973 and 2286 when read as seconds, milli-, micro- or nanoseconds is a time; no number
    does so in two of these units.

    >>> moment_format(874_965_478, 893_286_638), moment_format(0, 270)
    ((1, '%Y-%m-%d'), None)
    """
    for ticks in (1, 10**3, 10**6, 10**9):
        if low / ticks >= 1e8 and high / ticks < 1e10:
            days = (high - low) / ticks / 86_400
            return ticks, "%Y-%m-%d" if days > 20 else "%Y-%m-%d %H:%M"
    return None


def moment(value: float, ticks: int, style: str) -> str:
    """A time since 1970 (UTC).

    >>> moment(874_965_478_000, 1000, "%Y-%m-%d")
    '1997-09-22'
    """
    return (_EPOCH + timedelta(seconds=value / ticks)).strftime(style)
