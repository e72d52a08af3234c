"""Tables cut to fewer samples, or to fewer titles: what small runs of the stages read."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from dealrec.columns import HISTORY, ITEM, ITEM_INDEX, SAMPLE, TARGET, TITLE
from dealrec.engine.run_directory import read_table

OCCURRING = 32  # titles of a cut that anything is about: fewer than it has, so that something is left to recommend
BLOCK = 256  # training sequences alike in length stay together, as the batches of a run hold them


def some_rows(samples: pl.DataFrame, count: int, *, block: int = 1) -> pl.DataFrame:
    """So many samples, in blocks of neighbours by length, spread evenly from the shortest to the longest."""
    if count >= len(samples):
        return samples
    block = min(block, count)
    centres = (np.arange(count // block) + 0.5) * len(samples) / (count // block)
    rows = (centres - block / 2).astype(int)[:, None] + np.arange(block)
    return samples.sort(pl.col(HISTORY).list.len(), SAMPLE)[rows.ravel()].sort(SAMPLE)


def write_cut(data: Path, out: Path, *, rows: Mapping[str, int], titles: int | None) -> None:
    """Write `data` to `out` with so many rows of some tables, by the names of their files, and with so many titles.

    titles: None, or from `OCCURRING` on. Those that are left out are then replaced by some that are like them in
    length and that every cut has, so that no history gets shorter, and that what has learnt of few titles can read them
    where there are more.
    """
    out.mkdir()
    items = read_table(data / "items.parquet").sort(pl.col(TITLE).str.len_chars(), ITEM_INDEX)
    count, ranks = len(items), np.arange(len(items))
    kept = items[ranks[:titles] * count // min(titles or count, count)]
    kept = kept.with_columns(pl.int_range(1, pl.len() + 1).alias(ITEM_INDEX))
    stand_ins = (items[ITEM], items[ITEM][ranks * OCCURRING // count * count // OCCURRING])
    columns = {name: pl.col(name).replace(*stand_ins) for name in (ITEM, TARGET)}
    columns[HISTORY] = pl.col(HISTORY).list.eval(pl.element().replace(*stand_ins))
    for path in data.glob("*.parquet"):
        if titles is None and path.stem not in rows:
            (out / path.name).symlink_to(path.absolute())
            continue
        table = read_table(path)
        if path.stem in rows:
            table = some_rows(table, rows[path.stem], block=BLOCK if path.stem == "samples-train" else 1)
        if titles is not None:
            replaced = (column for name, column in columns.items() if name in table.columns)
            table = kept if path.stem == "items" else table.with_columns(replaced)
        table.write_parquet(out / path.name)
