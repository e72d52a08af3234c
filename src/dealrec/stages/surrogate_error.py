"""The surrogate's error on every sample, at its target alone (EL2N, Paul et al., NeurIPS 2021)."""

import polars as pl

from dealrec.columns import SAMPLE, SURROGATE_ERROR
from dealrec.engine.run_directory import read_table, write_table
from dealrec.stages import surrogate, surrogate_loss
from dealrec.stages.context import Context, Stage


def run(context: Context) -> None:
    """The norm of prediction less target."""
    from dealrec.surrogate.losses import unit_errors

    ids = read_table(context.input("data/samples-train.parquet"))[SAMPLE]
    errors = surrogate_loss.at_targets(context, surrogate.trained(context), unit_errors)
    write_table(
        context.out / "scores.parquet", pl.DataFrame({SAMPLE: ids, SURROGATE_ERROR: errors.numpy()}), key=SAMPLE
    )


STAGE = Stage(
    "surrogate_error",
    1,
    run,
    surrogate_loss.STAGE.inputs,
    surrogate_loss.STAGE.settings,
    surrogate.module_files,
    surrogate.STAGE.machine,
)
