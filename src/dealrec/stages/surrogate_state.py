"""The surrogate's state of every sample at its target: what its user is like just then, as a vector."""

import polars as pl

from dealrec.columns import SAMPLE, SURROGATE_STATE
from dealrec.engine.run_directory import read_table, write_table
from dealrec.stages import surrogate, surrogate_loss
from dealrec.stages.context import Context, Stage


def run(context: Context) -> None:
    """The vector whose products with the items' vectors are their scores."""
    from dealrec.surrogate.losses import unit_states

    ids = read_table(context.input("data/samples-train.parquet"))[SAMPLE]
    states = surrogate_loss.at_targets(
        context, surrogate.trained(context), lambda model, batch, **_: unit_states(model, batch)
    )
    table = pl.DataFrame({SAMPLE: ids, SURROGATE_STATE: states.float().numpy()})
    write_table(context.out / "scores.parquet", table, key=SAMPLE)


STAGE = Stage(
    "surrogate_state",
    1,
    run,
    surrogate_loss.STAGE.inputs,
    surrogate_loss.STAGE.settings,
    surrogate.module_files,
    surrogate.STAGE.machine,
)
