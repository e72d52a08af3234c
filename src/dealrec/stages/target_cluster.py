"""Clusters of targets whose titles are alike, and how much of validation each has."""

import polars as pl

from dealrec.columns import CLUSTER_SHARE, ITEM_INDEX, SAMPLE, TARGET, TARGET_CLUSTER, TITLE_EMBEDDING
from dealrec.config.arms import SEEDS, replicate_seed
from dealrec.engine.run_directory import read_table, write_table
from dealrec.stages.context import Context, Stage
from dealrec.stages.signals import DATA_FILES, data_signals


def run(context: Context) -> None:
    """k-means over the titles of the whole catalogue, so that validation's new items are of a cluster too."""
    import torch

    from dealrec.selection.clusters import clusters_of

    titles = read_table(context.input("title_embedding/items.parquet"))
    generator = torch.Generator().manual_seed(replicate_seed(context.config))
    labels, _ = clusters_of(titles[TITLE_EMBEDDING].to_torch(), context.config.text.clusters, generator=generator)
    clusters = titles.select(pl.col(ITEM_INDEX).alias(TARGET), pl.Series(TARGET_CLUSTER, labels.numpy()))
    train, valid = (
        table.select(SAMPLE, TARGET).join(clusters, on=TARGET, how="left") for table in data_signals(context)
    )
    shares = valid.group_by(TARGET_CLUSTER).agg((pl.len() / max(1, len(valid))).alias(CLUSTER_SHARE))
    samples = pl.concat([train, valid]).join(shares, on=TARGET_CLUSTER, how="left")
    table = samples.select(SAMPLE, TARGET_CLUSTER, pl.col(CLUSTER_SHARE).fill_null(0.0))
    write_table(context.out / "scores.parquet", table, key=SAMPLE)
    context.facts["clusters"] = clusters[TARGET_CLUSTER].n_unique()


STAGE = Stage(
    "target_cluster",
    1,
    run,
    (*DATA_FILES, "title_embedding/items.parquet"),
    (*SEEDS, "text.clusters"),
)
