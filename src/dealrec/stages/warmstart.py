"""Warm start: the recommender as the earlier part of the training period leaves it."""

from dealrec.stages.context import Context, Stage
from dealrec.stages.recommenders import kinds


def run(context: Context) -> None:
    """Train on the earlier part, where one is set apart; else leave nothing."""
    kinds.kind(context.config).warm_start(context)


STAGE = Stage(
    "warmstart",
    2,
    run,
    ("data/samples-warm.parquet", "data/samples-valid.parquet", "data/items.parquet"),
    ("seed", "warm_replicate", "data.warm_share", "warmstart", *kinds.SETTINGS),
    kinds.files,
    kinds.machine,
)
