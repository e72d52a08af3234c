"""The samples that a selection can be of: those of training, and of validation to compare with."""

import polars as pl

from dealrec.columns import SAMPLE
from dealrec.engine.run_directory import read_table
from dealrec.stages.context import Context

ROWS_FILE = "data/rows.parquet"  # the texts of the user's own training rows, of a run of format rows
OTHER_ROWS_FILE = "data/other-rows.parquet"  # those of no interaction
FILES = ("data/samples-train.parquet", "data/samples-valid.parquet")


def rows_file(context: Context) -> tuple[str, ...]:
    """The file of the user's own training rows, where the stage reads them."""
    return (ROWS_FILE,) if ROWS_FILE in context.inputs else ()


def selectable(context: Context) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The samples of training, and those of validation, whose ids here go on where those of training end."""
    train, valid = (read_table(context.input(name)) for name in FILES)
    return train, valid.with_columns(pl.col(SAMPLE) + train.select(pl.col(SAMPLE).max() + 1).item())
