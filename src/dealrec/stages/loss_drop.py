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
from dealrec.stages.validation_draw import candidates_of_folds, cross_fitted, folds


def run(context: Context) -> None:
    """Tune, and take the losses again."""
    valid = read_table(context.input("data/samples-valid.parquet"))
    pool = read_table(context.input("pool/pool.parquet"))
    before = pool.join(read_table(context.input("loss/details.parquet")), on=SAMPLE, how="left").sort(SAMPLE)
    drawn, drops = folds(context, len(valid), context.config.loss_drop.validation_samples), []
    for number, fold in enumerate(drawn):
        tuned = context.shard_once(f"tuned-{number}", partial(_tune, context, valid[fold]))
        recommender = kinds.kind(context.config).fine_tuned(context, tuned)
        after = loss.candidate_losses(context, recommender, shards=f"after-{number}-")
        drops.append((before[LOSS] - after[LOSS]) * before[TOKENS])
    tuned_on = candidates_of_folds(context, valid[SAMPLE], drawn)
    drop = cross_fitted(drops, before[SAMPLE], tuned_on).alias(LOSS_DROP)
    write_table(context.out / "scores.parquet", before.select(SAMPLE, drop), key=SAMPLE)
    context.facts |= {"validation_samples": sum(map(len, drawn)), "folds": len(drawn)}


def _tune(context: Context, samples: pl.DataFrame, out: Path) -> None:
    kind, settings, seed = kinds.kind(context.config), context.config.loss_drop, replicate_seed(context.config)
    tuning: TrainingConfig = context.config.finetune.model_copy(
        update={
            "epochs": settings.epochs,
            "learning_rate": settings.learning_rate or context.config.finetune.learning_rate,
            "patience": None,
            "checkpoint_every": None,
        }
    )
    reload = partial(kind.fine_tuned, context, out)
    train_on(
        context, out.stem, kind.start(context), samples, out, settings=tuning, seed=seed, save=kind.save, reload=reload
    )


_TUNING = ("learning_rate", "batch_size", "micro_batch_size", "warmup_share")

STAGE = Stage(
    "loss_drop",
    1,
    run,
    (*loss.STAGE.inputs, "data/samples-valid.parquet", "loss/details.parquet"),
    (*SEEDS, "data.final", "loss_drop", *(f"finetune.{name}" for name in _TUNING), *kinds.SETTINGS),
    kinds.files,
    kinds.machine,
)
