"""Segments of test users, to see whom a selection helps."""

from pathlib import Path

import polars as pl

from dealrec.columns import HISTORY, HISTORY_LENGTH, ITEM, SEGMENT, TARGET, TRAIN_COUNT, USER
from dealrec.engine.run_directory import read_table


def segments_of(run_dir: Path) -> pl.DataFrame:
    """user_id, segment: short or long history (at the median), rare or popular target (likewise), cold target.

    A cold target is of no training interaction; it is no rare one. Of a user with several targets the one in the middle
    counts, by history and by interactions. What holds for all users, such as the longest history kept, is no segment.
    """
    items = read_table(run_dir / "data/items.parquet").select(ITEM, TRAIN_COUNT)
    samples = read_table(run_dir / "data/samples-test.parquet").drop_nulls(TARGET)
    table = samples.join(items, left_on=TARGET, right_on=ITEM, how="left").with_columns(
        pl.col(HISTORY).list.len().alias(HISTORY_LENGTH)
    )
    table = table.group_by(USER, maintain_order=True).agg(pl.col(HISTORY_LENGTH, TRAIN_COUNT).median())
    length, count = pl.col(HISTORY_LENGTH), pl.col(TRAIN_COUNT)
    warm = table.filter(count > 0)
    middle = warm[TRAIN_COUNT].median()
    parts = {
        "short histories": table.filter(length <= length.median()),
        "long histories": table.filter(length > length.median()),
        "popular targets": warm.filter(count > middle),
        "rare targets": warm.filter(count <= middle),
        "cold targets": table.filter(count == 0),
    }
    segments = [
        part.select(USER, pl.lit(name).alias(SEGMENT)) for name, part in parts.items() if len(part) < len(table)
    ]
    return pl.concat([table.select(USER, pl.lit("").alias(SEGMENT)).clear(), *segments])
