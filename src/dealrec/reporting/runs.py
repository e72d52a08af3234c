"""What the report reads of a run."""

from typing import Literal

import polars as pl

from dealrec.columns import TIMESTAMP, USER
from dealrec.config import Config
from dealrec.engine import run_directory

Run = run_directory.Run[Config]


def times_are(run: Run) -> Literal["moments", "rows", "places"]:
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
