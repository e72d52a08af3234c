"""Effort as its stage scores it: norms a shard at a time, the exponent of length, and what effort goes with."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from dealrec.columns import EFFORT, INFLUENCE, ITEM, LOSS, NORM, SAMPLE, TARGET, TOKENS, TRAIN_COUNT
from dealrec.errors import NonFinite
from dealrec.pipeline.kinds import kind
from dealrec.pipeline.stage import Context
from dealrec.pipeline.tables import write_table

if TYPE_CHECKING:
    from dealrec.effort import Encoded
    from dealrec.recommenders.protocol import Recommender

EXPONENTS = (0.0, 0.5, 1.0)


def score_effort(context: Context, samples: pl.DataFrame) -> list[Path]:
    """Score the samples a shard at a time: files of sample_id, norm, loss, tokens. Interrupted, a run keeps them."""
    from dealrec.pipeline.training import encode

    size = context.config.effort.shard_size
    recommender = kind(context.config).start(context)
    encoded = encode(recommender, samples)
    paths = []
    with context.progress.bar("effort: samples", len(encoded)) as advance:
        for start in range(0, len(encoded), size):
            paths.append(context.shard(f"{start:08d}.parquet"))
            shard, ids = encoded[start : start + size], samples[SAMPLE][start : start + size]
            if paths[-1].exists():
                for _ in shard:
                    advance()
            else:
                write_table(paths[-1], _score_shard(context, recommender, shard, ids, advance), key=SAMPLE)
    context.facts["median_tokens"] = int(np.median([len(sample.input_ids) for sample in encoded]))
    return paths


def _score_shard(
    context: Context,
    recommender: "Recommender",
    shard: "Sequence[Encoded]",
    ids: pl.Series,
    after_each: Callable[[], None],
) -> pl.DataFrame:
    """One shard, in batches of samples alike in length."""
    from dealrec.effort import collate, norms_and_losses, plan_batches
    from dealrec.effort.loss import IGNORED

    settings, model = context.config.effort, recommender.model
    plan = plan_batches([len(sample.input_ids) for sample in shard], batch_tokens=settings.batch_tokens)

    def batches() -> Iterator[Any]:
        for batch in plan:
            yield collate([shard[i] for i in batch], pad_id=recommender.pad_id, device=model.device)
            for _ in batch:
                after_each()

    order = [i for batch in plan for i in batch]
    rows = [ids[i] for i in order]
    try:
        norms, losses = norms_and_losses(model, batches(), parameters=settings.parameters)
    except NonFinite as error:
        raise error.naming(rows) from None
    tokens = [sum(label != IGNORED for label in shard[i].labels) for i in order]
    columns = {NORM: norms.double().cpu().numpy(), LOSS: losses.double().cpu().numpy(), TOKENS: tokens}
    return pl.DataFrame({SAMPLE: rows, **columns})


def correlations(
    context: Context, samples: pl.DataFrame, scored: pl.DataFrame, *, exponents: Iterable[float]
) -> pl.DataFrame:
    """Spearman correlation of effort, under several exponents of length, with what it may be a proxy for.

    scored: sample_id, effort, norm, loss, tokens, influence. Returns exponent, with, spearman: null where either is
    constant. popularity: training interactions of the target.
    """
    from dealrec.effort.length import correct_length

    items = pl.read_parquet(context.input("data/items.parquet")).select(ITEM, TRAIN_COUNT)
    table = scored.join(samples.select(SAMPLE, TARGET), on=SAMPLE).join(items, left_on=TARGET, right_on=ITEM)
    norms, tokens = table[NORM].to_torch(), table[TOKENS].to_torch()
    rows = []
    for exponent in sorted({*EXPONENTS, *exponents}):
        effort = pl.Series(EFFORT, correct_length(norms, tokens, exponent=exponent).numpy())
        for name, column in ((TOKENS, TOKENS), (LOSS, LOSS), ("popularity", TRAIN_COUNT), (INFLUENCE, INFLUENCE)):
            rows.append({"exponent": exponent, "with": name, "spearman": spearman(effort, table[column])})
    return pl.DataFrame(rows, schema={"exponent": pl.Float64, "with": pl.String, "spearman": pl.Float64})


def spearman(left: pl.Series, right: pl.Series) -> float | None:
    """Rank correlation; None where one of them is constant."""
    value = pl.select(pl.corr(left.cast(pl.Float64), right.cast(pl.Float64), method="spearman")).item()
    return None if value is None or value != value else float(value)
