"""The recommender's loss on the candidates, as it is before fine-tuning."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from dealrec.columns import LOSS, ROW, SAMPLE, TOKENS
from dealrec.engine.run_directory import merge_shards, read_table, write_table
from dealrec.errors import NonFinite
from dealrec.stages.context import Context, Stage
from dealrec.stages.recommenders import kinds
from dealrec.stages.recommenders.training import by_row, encode, mean_token_losses, per_sample, warn_of_cut_rows

if TYPE_CHECKING:
    from torch import Tensor

    from dealrec.recommenders.protocol import Recommender
    from dealrec.sequences import Encoded


def run(context: Context) -> None:
    """The mean over a sample's target tokens."""
    for warning in kinds.kind(context.config).check(context.config, context.run_dir):
        context.warn(warning)
    losses = candidate_losses(context, kinds.kind(context.config).start(context))
    write_table(context.out / "details.parquet", losses, key=SAMPLE)
    write_table(context.out / "scores.parquet", losses.select(SAMPLE, LOSS), key=SAMPLE)


def candidate_losses(context: Context, recommender: "Recommender", *, shards: str = "") -> pl.DataFrame:
    """sample_id, loss (mean over target tokens), tokens of every candidate. shards: see `of_candidates`."""
    measure = partial(mean_token_losses, recommender, batch_tokens=context.config.loss_drop.batch_tokens)
    return of_candidates(context, recommender, LOSS, measure, shards=shards)


def of_candidates(
    context: Context,
    recommender: "Recommender",
    name: str,
    measure: "Callable[[Sequence[Encoded]], Tensor]",
    *,
    shards: str = "",
) -> pl.DataFrame:
    """sample_id, what is measured of every candidate, and its target tokens; an interrupted run keeps its shards.

    name: of the column. measure: samples -> [n], in their order. shards: what their names begin with, where a stage
    measures several times.
    """
    pool = read_table(context.input("pool/pool.parquet"))
    samples = read_table(context.input("data/samples-train.parquet")).join(pool, on=SAMPLE, how="semi")
    samples = by_row(context, samples)
    key = ROW if ROW in samples.columns else SAMPLE
    size, paths = context.config.loss_drop.shard_size, []
    recommender.model.eval()
    starts = range(0, len(samples), size)
    for start in context.track(starts, f"shards of {size:,} samples"):
        paths.append(context.shard(f"{shards}{start:08d}.parquet"))
        if not paths[-1].exists():
            shard = samples[start : start + size]
            encoded = encode(context, recommender, shard)
            values = pl.Series(name, measure(encoded).double().numpy())
            ids = list(dict.fromkeys([key, SAMPLE]))
            table = shard.select(*ids, values, pl.Series(TOKENS, _tokens(encoded)))
            write_table(paths[-1], table, key=key)
    merged = per_sample(merge_shards(paths, key=key, expected=samples[key]))
    warn_of_cut_rows(context)
    if bad := merged.filter(~pl.col(name).is_finite())[SAMPLE].to_list():
        raise NonFinite(
            f"{context.name}: the {name} is NaN or infinite for {len(bad)} samples, the first {bad[:5]}",
            "Check the recommender's weights; for loss_drop lower loss_drop.learning_rate.",
        )
    return merged


def _tokens(encoded: "Sequence[Encoded]") -> list[int]:
    from dealrec.sequences.losses import IGNORED

    return [sum(label != IGNORED for label in sample.labels) for sample in encoded]


STAGE = Stage(
    "loss",
    1,
    run,
    ("data/samples-train.parquet", "data/items.parquet", "pool/pool.parquet", "warmstart"),
    ("seed", "loss_drop.batch_tokens", *kinds.SETTINGS),
    kinds.files,
    kinds.machine,
)
