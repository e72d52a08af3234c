"""Fine-tuning of a recommender on some samples, and the proof that what was saved is what was trained."""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import polars as pl

from dealrec.columns import ROW, ROWS, SAMPLE, TOKENS
from dealrec.config import TrainingConfig
from dealrec.data.catalogue import pairs
from dealrec.engine.run_directory import read_table
from dealrec.stages.context import Context
from dealrec.stages.samples import ROWS_FILE, rows_file

if TYPE_CHECKING:
    from torch import Tensor

    from dealrec.recommenders.protocol import Recommender, RowReader
    from dealrec.sequences import Encoded

PROBES, PROBE_TOKENS = 4, 2048
TRACKING = "tracking"  # the folder of the run directory that TensorBoard shows
LOGGING_DIR = "TENSORBOARD_LOGGING_DIR"  # the environment variable by which transformers is told where to write for it


def warm_folder(context: Context) -> Path:
    """What the warm start left of the recommender that the stage works with."""
    return context.input(next(name for name in context.inputs if name.endswith("warmstart")))


def encode(context: Context, recommender: "Recommender", samples: pl.DataFrame) -> "list[Encoded]":
    """Each sample as tokens, in the order of the table; of a user's own training rows each row (`by_row`)."""
    if not rows_file(context):
        return [recommender.encode(history, target) for history, target in pairs(samples)]
    texts = row_texts(context, by_row(context, samples))
    encoded = [cast("RowReader", recommender).encode_row(text) for text in texts.iter_rows(named=True)]
    if cut := sum(row.cut for row in encoded):
        context.facts["rows_cut"] = context.facts.get("rows_cut", 0) + cut
    return [row.tokens for row in encoded]


def by_row(context: Context, samples: pl.DataFrame) -> pl.DataFrame:
    """A row of the table for each of the user's own training rows of a sample, where the stage reads them."""
    if not rows_file(context) or ROW in samples.columns:
        return samples
    return samples.explode(ROWS).rename({ROWS: ROW})


def per_sample(measured: pl.DataFrame) -> pl.DataFrame:
    """What was measured of rows (row, sample_id, tokens, and means over tokens) as that of samples.

    A mean is over the tokens of all rows of a sample. So a gradient norm, which is that of a mean, is at most this.
    """
    if ROW not in measured.columns:
        return measured
    means = [name for name in measured.columns if name not in (ROW, SAMPLE, TOKENS)]
    weighted = [((pl.col(name) * pl.col(TOKENS)).sum() / pl.col(TOKENS).sum()).alias(name) for name in means]
    table = measured.group_by(SAMPLE).agg(*weighted, pl.col(TOKENS).sum())
    return table.select(name for name in measured.columns if name != ROW).sort(SAMPLE)


def warn_of_cut_rows(context: Context) -> None:
    """Tell of rows that were longer than the LLM's positions, once."""
    if cut := context.facts.get("rows_cut"):
        context.warn(f"{cut:,} rows are longer than llm.rows.max_tokens, or the LLM's positions, and are cut there")


def row_texts(context: Context, rows: pl.DataFrame) -> pl.DataFrame:
    """The texts of the user's own rows, in the order of the table: row, row_id and what `layouts.SCHEMA` has."""
    texts = pl.scan_parquet(context.input(ROWS_FILE), glob=False).join(rows.lazy().select(ROW), on=ROW, how="semi")
    return rows.select(ROW).join(texts.collect(), on=ROW, how="left", maintain_order="left")


def mean_token_losses(
    recommender: "Recommender",
    samples: "Sequence[Encoded]",
    *,
    batch_tokens: int,
    watch: "Callable[[list[list[int]]], Iterable[list[int]]]" = iter,
) -> "Tensor":
    """The loss of each sample, in their order: [n], float32, on the CPU. The model is in eval mode."""
    import torch

    from dealrec.recommenders.bigrec.prefix import read_prefix
    from dealrec.sequences import collate, plan_batches, sequence_losses

    model, losses = recommender.model, torch.empty(len(samples))
    with torch.inference_mode():
        prefix = read_prefix(model, [_before_labels(sample) for sample in samples])
        for batch in watch(plan_batches([len(sample.input_ids) for sample in samples], batch_tokens=batch_tokens)):
            inputs = collate([samples[i] for i in batch], pad_id=recommender.pad_id, device=model.device)
            past = prefix.repeat(len(batch)) if prefix else None
            losses[batch] = sequence_losses(model, inputs, past=past).float().cpu()
    return losses


def _before_labels(sample: "Encoded") -> list[int]:
    from dealrec.sequences.losses import IGNORED

    return sample.input_ids[: next((i for i, label in enumerate(sample.labels) if label != IGNORED), None)]


def train_on(
    context: Context,
    name: str,
    recommender: "Recommender",
    samples: pl.DataFrame,
    out: Path,
    *,
    settings: TrainingConfig,
    seed: int,
    save: "Callable[[Recommender, Path], None]",
    reload: "Callable[[], Recommender]",
) -> None:
    """Train the learnable parameters on the samples, save them and how it went, and prove that they are saved.

    seed: of the order of the samples and of dropout; the validation samples are those of the run's seed. reload:
    makes of what was saved a recommender again. Of several processes (`launching`) all train and the first saves.
    Raises ModelError unless what was saved answers as trained, and unlike before the training.
    """
    from dealrec.engine.launching import is_first
    from dealrec.finetuning import require_saved, train
    from dealrec.sequences.losses import IGNORED

    encoded = encode(context, recommender, samples)
    untrained = _probe(recommender, encoded)
    steps = settings.epochs * -(-len(encoded) // settings.batch_size)
    label = f"{context.name}: {name}, steps of {settings.batch_size} samples"
    with _tracked(context, name), context.progress.bar(label, steps) as advance:
        training = train(
            recommender.model,
            encoded,
            pad_id=recommender.pad_id,
            scratch=context.scratch(f"trainer-{name.replace(' ', '-')}"),
            **settings.model_dump(include=set(TrainingConfig.model_fields) - {"validation_samples", "processes"}),
            validation=_validation(context, recommender, settings),
            seed=seed,
            after_step=advance,
        )
    if not is_first():
        return
    trained = _probe(recommender, encoded)
    save(recommender, out)
    facts = {"samples": len(samples), "rows": len(encoded), "epochs": settings.epochs, "training_loss": training.loss}
    facts["label_tokens"] = sum(label != IGNORED for sample in encoded for label in sample.labels)
    progress = {"steps": training.steps, "best_step": training.best_step, "validation": training.validation}
    (out / "training.json").write_text(json.dumps(facts | progress, indent=2) + "\n")
    require_saved(_probe(reload(), encoded), trained=trained, untrained=untrained, name=name)


@contextmanager
def _tracked(context: Context, name: str) -> Iterator[None]:
    """Have TensorBoard's files, if any, outlive the stage's shards, among which transformers would write them.

    A training has a folder of its own, and each session that it was resumed in, below that of the user's variable or
    `tracking` in the run directory.
    """
    user_folder = os.environ.get(LOGGING_DIR)
    root = Path(user_folder).expanduser() if user_folder else context.run_dir / TRACKING
    os.environ[LOGGING_DIR] = str(root / context.name / name.replace(" ", "-") / time.strftime("%Y-%m-%dT%H-%M-%S"))
    try:
        yield
    finally:
        if user_folder is None:
            del os.environ[LOGGING_DIR]
        else:
            os.environ[LOGGING_DIR] = user_folder


def _probe(recommender: "Recommender", samples: "Sequence[Encoded]") -> "Tensor":
    """Losses of a few samples in eval mode: [n]."""
    recommender.model.eval()
    return mean_token_losses(recommender, samples[:PROBES], batch_tokens=PROBE_TOKENS)


def _validation(context: Context, recommender: "Recommender", settings: TrainingConfig) -> "list[Encoded] | None":
    """Validation samples drawn from the seed, where training is to stop by them."""
    if settings.patience is None:
        return None
    samples = read_table(context.input("data/samples-valid.parquet"))
    count = min(settings.validation_samples, len(samples))
    return encode(context, recommender, samples.sample(count, seed=context.config.seed)) or None
