"""What every sample is about: the titles of its target and of its history, as one vector."""

import polars as pl

from dealrec.columns import HISTORY, ITEM_INDEX, SAMPLE, TARGET, TEXT_EMBEDDING, TITLE_EMBEDDING
from dealrec.engine.run_directory import read_table, write_table
from dealrec.stages.context import Context, Stage
from dealrec.stages.signals import DATA_FILES, data_signals


def run(context: Context) -> None:
    """Of the samples of training and of validation, whose ids are those of `selectable`."""
    from dealrec.selection.text import sample_embeddings

    titles = read_table(context.input("title_embedding/items.parquet")).sort(ITEM_INDEX)[TITLE_EMBEDDING].to_torch()
    samples = pl.concat([table.select(SAMPLE, HISTORY, TARGET) for table in data_signals(context)])
    embeddings = sample_embeddings(titles, samples[HISTORY].to_list(), samples[TARGET].to_list())
    table = samples.select(SAMPLE, pl.Series(TEXT_EMBEDDING, embeddings.numpy()))
    write_table(context.out / "scores.parquet", table, key=SAMPLE)


STAGE = Stage("text_embedding", 1, run, (*DATA_FILES, "title_embedding/items.parquet"))
