"""Surrogate loss drop: how far each sample's loss falls when the surrogate is tuned for a moment on validation.

Train-on-Validation (Jain, Montanari and Sasoglu, arXiv 2510.00386), on the surrogate: influence on the validation risk
with the inverse Hessian taken by actual training.
"""

import polars as pl

from dealrec.columns import SAMPLE, SURROGATE_LOSS, SURROGATE_LOSS_DROP
from dealrec.config.arms import replicate_seed
from dealrec.engine.run_directory import read_table, write_table
from dealrec.stages import surrogate, surrogate_loss
from dealrec.stages.context import Context, Stage
from dealrec.stages.validation_draw import candidates_of_folds, cross_fitted, folds


def run(context: Context) -> None:
    """The loss of the surrogate as it was trained, less its loss once it is tuned."""
    import torch

    from dealrec.surrogate import train

    settings, seed = context.config.surrogate_loss_drop, replicate_seed(context.config)
    samples = read_table(context.input("data/samples-train.parquet")).select(SAMPLE)
    before = samples.join(read_table(context.input("surrogate_loss/scores.parquet")), on=SAMPLE, how="left")
    valid_ids = read_table(context.input("data/samples-valid.parquet"))[SAMPLE]
    valid = surrogate.units(context, "valid")
    options = surrogate.training_settings(context.config) | {
        "max_epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
        "batch_size": settings.batch_size,
    }
    drawn, drops = folds(context, len(valid), settings.validation_samples), []
    for fold in drawn:
        model = surrogate.trained(context)
        train(model, valid.take(torch.tensor(fold)), None, **options, seed=seed)
        drops.append(before[SURROGATE_LOSS] - pl.Series(surrogate_loss.target_losses(context, model).numpy()))
    tuned_on = candidates_of_folds(context, valid_ids, drawn)
    drop = cross_fitted(drops, before[SAMPLE], tuned_on).alias(SURROGATE_LOSS_DROP)
    write_table(context.out / "scores.parquet", before.select(SAMPLE, drop), key=SAMPLE)
    context.facts |= {"validation_samples": sum(map(len, drawn)), "folds": len(drawn)}


STAGE = Stage(
    "surrogate_loss_drop",
    1,
    run,
    (*surrogate_loss.STAGE.inputs, "data/samples-valid.parquet", "surrogate_loss/scores.parquet"),
    (*surrogate_loss.STAGE.settings, "surrogate_loss_drop", "surrogate.dropout", "data.final"),
    surrogate.module_files,
    surrogate.STAGE.machine,
)
