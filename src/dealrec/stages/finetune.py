"""Fine-tuning: one adapter or model for each training of each arm, all from one start."""

from functools import partial
from pathlib import Path

import polars as pl

from dealrec.columns import SAMPLE
from dealrec.config import FinetuneConfig
from dealrec.config.arms import ARMS, SEEDS, FineTuning, fine_tunings
from dealrec.devices import free_memory
from dealrec.engine.launching import on_devices
from dealrec.engine.run_directory import read_table
from dealrec.stages.context import Context, Stage
from dealrec.stages.recommenders import kinds
from dealrec.stages.recommenders.training import train_on
from dealrec.stages.samples import FILES, rows_file, selectable

_SHARED = (*FILES, "data/items.parquet", "warmstart")


def run(context: Context) -> None:
    """Train what is not there yet; each is proven to change the outputs."""
    samples = pl.concat(selectable(context))
    tunings = fine_tunings(context.config)
    for tuning in tunings:
        table = f"select/{tuning.arm}.parquet"
        if not context.input(table).exists():
            continue  # its method failed, as the selection has said
        chosen = samples.join(read_table(context.input(table)), on=SAMPLE, how="semi")
        job = partial(_fine_tune, tuning=tuning, samples=chosen)
        train = partial(on_devices, context, job, processes=context.config.finetune.processes)
        context.unit(
            tuning.name,
            train,
            without=("finetune.seeds", *ARMS),
            inputs=(*_SHARED, *rows_file(context), table),
            given=tuning.learning_rate,
        )
        free_memory()  # of this arm's models, before the next one's are loaded
    context.facts["training_seeds"] = list(dict.fromkeys(tuning.seed for tuning in tunings))


def _fine_tune(context: Context, out: Path, *, tuning: FineTuning, samples: pl.DataFrame) -> None:
    kind, settings = kinds.kind(context.config), context.config.finetune
    if tuning.learning_rate is not None:
        settings = settings.model_copy(update={"learning_rate": tuning.learning_rate})
    start, reload = kind.start(context), partial(kind.fine_tuned, context, out)
    train_on(
        context, tuning.name, start, samples, out, settings=settings, seed=tuning.seed, save=kind.save, reload=reload
    )


STAGE = Stage(
    "finetune",
    3,
    run,
    (*_SHARED, "select"),
    (
        *SEEDS,
        *(f"finetune.{name}" for name in FinetuneConfig.model_fields if name != "report_to"),
        *kinds.SETTINGS,
        *ARMS,
    ),
    kinds.files,
    kinds.machine,
)
