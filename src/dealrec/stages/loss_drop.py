"""Loss drop: how far each candidate's loss falls when the recommender is tuned for a moment on validation samples.

Train-on-Validation (Jain, Montanari and Sasoglu, arXiv 2510.00386), conditional loss reduction (Brandfonbrener et al.,
arXiv 2406.10670): to first order influence on the validation risk, for the model that is fine-tuned, at the point where
that begins. The drop is that of the sum over target tokens: of the mean, short targets would have the most.
"""

from functools import partial
from pathlib import Path

import polars as pl

from dealrec.columns import LOSS, LOSS_DROP, SAMPLE, TOKENS
from dealrec.config import TrainingConfig
from dealrec.config.arms import SEEDS, replicate_seed
from dealrec.engine.run_directory import read_table, write_table
from dealrec.stages import loss
from dealrec.stages.context import Context, Stage
from dealrec.stages.recommenders import kinds
from dealrec.stages.recommenders.training import train_on
from dealrec.stages.validation_draw import draw_validation


def run(context: Context) -> None:
    """Tune, and take the losses again."""
    tuned = context.shard_once("tuned", partial(_tune, context))
    after = loss.candidate_losses(context, kinds.kind(context.config).fine_tuned(context, tuned))
    before = read_table(context.input("loss/details.parquet"))
    table = before.join(after.select(SAMPLE, pl.col(LOSS).alias("after")), on=SAMPLE, validate="1:1")
    drop = ((pl.col(LOSS) - pl.col("after")) * pl.col(TOKENS)).alias(LOSS_DROP)
    write_table(context.out / "scores.parquet", table.select(SAMPLE, drop), key=SAMPLE)


def _tune(context: Context, out: Path) -> None:
    kind, settings, seed = kinds.kind(context.config), context.config.loss_drop, replicate_seed(context.config)
    valid = read_table(context.input("data/samples-valid.parquet"))
    drawn = draw_validation(context, len(valid), settings.validation_samples)
    context.facts["validation_samples"] = len(drawn)
    tuning: TrainingConfig = context.config.finetune.model_copy(
        update={
            "epochs": settings.epochs,
            "learning_rate": settings.learning_rate or context.config.finetune.learning_rate,
            "patience": None,
            "checkpoint_every": None,
        }
    )
    reload = partial(kind.fine_tuned, context, out)
    start = kind.start(context)
    train_on(context, "tuning", start, valid[drawn], out, settings=tuning, seed=seed, save=kind.save, reload=reload)


_TUNING = ("learning_rate", "batch_size", "micro_batch_size", "warmup_share")

STAGE = Stage(
    "loss_drop",
    1,
    run,
    (*loss.STAGE.inputs, "data/samples-valid.parquet", "loss/details.parquet"),
    (*SEEDS, "loss_drop", *(f"finetune.{name}" for name in _TUNING), *kinds.SETTINGS),
    kinds.files,
    kinds.machine,
)
