"""Every item of the catalogue by what it is about: its title as a sentence embedding, once for all signals of text."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from dealrec.columns import ITEM, ITEM_INDEX, TITLE, TITLE_EMBEDDING
from dealrec.config import Config
from dealrec.devices import fingerprint_parts
from dealrec.engine.run_directory import merge_shards, read_table, write_table
from dealrec.stages import text_encoder
from dealrec.stages.context import Context, Stage

SHARD_SIZE = 4096  # titles; a killed run resumes at the next shard


def run(context: Context) -> None:
    """Embeddings at length 1, pooled as the encoder says."""
    from dealrec.recommenders.tiger import embed_texts

    items = read_table(context.input("data/items.parquet")).select(ITEM, ITEM_INDEX, TITLE)
    encoder = text_encoder.load(*text_encoder.encoder(context.config), warn=context.warn)
    shards = []
    for start in context.track(range(0, len(items), SHARD_SIZE), f"shards of {SHARD_SIZE:,} titles"):
        shards.append(context.shard(f"{start:08d}.parquet"))
        if not shards[-1].exists():
            rows = items[start : start + SHARD_SIZE]
            embeddings = pl.Series(TITLE_EMBEDDING, embed_texts(encoder, rows[TITLE].to_list()).numpy())
            write_table(shards[-1], rows.select(ITEM, ITEM_INDEX, embeddings), key=ITEM_INDEX)
    table = merge_shards(shards, key=ITEM_INDEX, expected=items[ITEM_INDEX])
    write_table(context.out / "items.parquet", table, key=ITEM_INDEX)
    context.facts |= {"titles": len(table), "device": str(encoder.device)}


def _files(config: Config) -> Iterator[Path | str]:
    return text_encoder.files(*text_encoder.encoder(config))


STAGE = Stage("title_embedding", 1, run, ("data/items.parquet",), (), _files, lambda _config: fingerprint_parts())
