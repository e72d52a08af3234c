"""How many tokens each sample has, where the budget counts them."""

import polars as pl

from dealrec.columns import LENGTH, SAMPLE
from dealrec.engine.run_directory import merge_shards, write_table
from dealrec.stages.context import Context, Stage
from dealrec.stages.recommenders import kinds
from dealrec.stages.recommenders.training import by_row, encode, warn_of_cut_rows
from dealrec.stages.samples import FILES, selectable

SHARD_SIZE = 4096


def run(context: Context) -> None:
    """Of the samples of training and, their ids going on from there, of validation."""
    recommender = kinds.kind(context.config).start(context)
    samples, paths = pl.concat(selectable(context)), []
    for start in context.track(range(0, len(samples), SHARD_SIZE), f"shards of {SHARD_SIZE:,} samples"):
        paths.append(context.shard(f"{start:08d}.parquet"))
        if not paths[-1].exists():
            rows = by_row(context, samples[start : start + SHARD_SIZE])
            lengths = [len(tokens.input_ids) for tokens in encode(context, recommender, rows)]
            table = rows.select(SAMPLE, pl.Series(LENGTH, lengths, dtype=pl.Int64)).group_by(SAMPLE).sum()
            write_table(paths[-1], table, key=SAMPLE)
    warn_of_cut_rows(context)
    write_table(context.out / "scores.parquet", merge_shards(paths, key=SAMPLE, expected=samples[SAMPLE]), key=SAMPLE)


STAGE = Stage(
    "length",
    1,
    run,
    (*FILES, "data/items.parquet", "warmstart"),
    ("seed", *kinds.SETTINGS),
    kinds.files,
    kinds.machine,
)
