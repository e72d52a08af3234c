"""The surrogate's loss on every sample, at its target alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from dealrec.columns import SAMPLE, SURROGATE_LOSS
from dealrec.engine.run_directory import read_table, write_table
from dealrec.errors import NonFinite
from dealrec.stages import surrogate
from dealrec.stages.context import Context, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from dealrec.surrogate import Surrogate


def run(context: Context) -> None:
    """The loss of the surrogate as it was trained."""
    ids = read_table(context.input("data/samples-train.parquet"))[SAMPLE]
    losses = target_losses(context, surrogate.trained(context))
    write_table(context.out / "scores.parquet", pl.DataFrame({SAMPLE: ids, SURROGATE_LOSS: losses.numpy()}), key=SAMPLE)


def target_losses(context: Context, model: Surrogate) -> Tensor:
    """Each sample's loss at its target: [n], as `at_targets` has it."""
    from dealrec.surrogate.losses import unit_losses

    return at_targets(context, model, unit_losses)


def at_targets(context: Context, model: Surrogate, measure: Callable[..., Tensor]) -> Tensor:
    """What is measured of each sample at its target, without dropout: [n, ...], float64, on the CPU, in their order.

    measure: (model, batch, loss=) -> [batch, ...]. The negatives are drawn once from the seed, so that two models
    differ by themselves alone.
    """
    import torch

    batches = surrogate.batches(context, model, "train", whole=False)
    model.eval()
    with torch.inference_mode():
        losses = [
            measure(model, batch, loss=context.config.surrogate.loss).double().cpu()
            for batch in context.track(batches, "batches")
        ]
    restored = batches.restore_order(torch.cat(losses))
    if not bool(torch.isfinite(restored).all()):
        raise NonFinite(f"{context.name}: what the surrogate predicts is NaN or infinite", "Lower its learning_rate.")
    return restored


STAGE = Stage(
    "surrogate_loss",
    1,
    run,
    ("data/samples-train.parquet", "data/items.parquet", "surrogate/model.safetensors"),
    (*surrogate.SCORING, "influence.batch_positions"),
    surrogate.module_files,
    surrogate.STAGE.machine,
)
