"""Surrogate loss drop: how far each sample's loss falls when the surrogate is tuned for a moment on validation.

Train-on-Validation (Jain, Montanari and Sasoglu, arXiv 2510.00386), on the surrogate: influence on the validation risk
with the inverse Hessian taken by actual training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from dealrec.columns import SAMPLE, SURROGATE_LOSS, SURROGATE_LOSS_DROP
from dealrec.config.arms import replicate_seed
from dealrec.engine.run_directory import read_table, write_table
from dealrec.stages import surrogate, surrogate_loss
from dealrec.stages.context import Context, Stage
from dealrec.stages.validation_draw import candidates_of_folds, cross_fitted, folds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from dealrec.surrogate import Surrogate, Units


def run(context: Context) -> None:
    """The loss of the surrogate as it was trained, less its loss once it is tuned."""
    samples = read_table(context.input("data/samples-train.parquet")).select(SAMPLE)
    before = samples.join(read_table(context.input("surrogate_loss/scores.parquet")), on=SAMPLE, how="left")
    valid_ids = read_table(context.input("data/samples-valid.parquet"))[SAMPLE]
    valid = surrogate.units(context, "valid")
    drawn, drops = folds(context, len(valid), context.config.surrogate_loss_drop.validation_samples), []
    for fold in drawn:
        after = losses_once_tuned(context, surrogate.trained(context), valid, fold)
        drops.append(before[SURROGATE_LOSS] - pl.Series(after.numpy()))
    tuned_on = candidates_of_folds(context, valid_ids, drawn)
    drop = cross_fitted(drops, before[SAMPLE], tuned_on).alias(SURROGATE_LOSS_DROP)
    write_table(context.out / "scores.parquet", before.select(SAMPLE, drop), key=SAMPLE)
    context.facts |= {"validation_samples": sum(map(len, drawn)), "folds": len(drawn)}


def losses_once_tuned(context: Context, model: Surrogate, valid: Units, fold: Sequence[int]) -> Tensor:
    """Each sample's loss once `model` is tuned, in place, on the validation units at `fold`: [n]."""
    import torch

    from dealrec.surrogate import train

    settings = context.config.surrogate_loss_drop
    options = surrogate.training_settings(context.config) | {
        "max_epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
        "batch_size": settings.batch_size,
    }
    train(model, valid.take(torch.tensor(fold)), None, **options, seed=replicate_seed(context.config))
    return surrogate_loss.target_losses(context, model)


STAGE = Stage(
    "surrogate_loss_drop",
    1,
    run,
    (*surrogate_loss.STAGE.inputs, "data/samples-valid.parquet", "surrogate_loss/scores.parquet"),
    (*surrogate_loss.STAGE.settings, "surrogate_loss_drop", "surrogate.dropout", "data.final"),
    surrogate.module_files,
    surrogate.STAGE.machine,
)
