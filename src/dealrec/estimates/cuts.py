"""A data stage's outcome cut to some training sequences, or to some titles: what small runs of the stages read."""

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

import numpy as np
import polars as pl

from dealrec.columns import HISTORY, ITEM, ITEM_INDEX, SAMPLE, TARGET, TITLE
from dealrec.engine.run_directory import read_table

SEEN = ("interactions-train", "interactions-valid")
BLOCK = 32  # sequences alike in length stay together, as the batches of a run hold them


def spread(count: int) -> list[int]:
    """0 ... count - 1 in an order whose beginnings are spread evenly over all: the golden ratio's multiples, ranked.

    >>> spread(8)
    [3, 0, 5, 2, 7, 4, 1, 6]
    """
    return [int(rank) for rank in ((0.5 + np.arange(count) * (5**0.5 - 1) / 2) % 1).argsort().argsort()]


def some_rows(samples: pl.DataFrame, share: float, *, block: int) -> pl.DataFrame:
    """About such a share of the samples, in blocks of neighbours by length, spread from the shortest to the longest."""
    ordered = samples.sort(pl.col(HISTORY).list.len(), SAMPLE).with_row_index("place")
    blocks = max(1, round(len(ordered) / block))
    chosen = spread(blocks)[: max(1, round(share * blocks))]
    return ordered.filter((pl.col("place") * blocks // len(ordered)).is_in(chosen)).drop("place").sort(SAMPLE)


def write_cut(data: Path, out: Path, *, shares: Mapping[str, float], titles: int | None, occurring: int) -> None:
    """Write `data` to `out` with so large a share of some tables, by the names of their files, and with so many titles.

    Where titles are left out, each item is replaced by one of the first `occurring` of those that are kept, so that no
    history gets shorter, and that what has learnt of few titles can read them where there are more.
    """
    out.mkdir()
    items = read_table(data / "items.parquet").sort(ITEM_INDEX)
    by_length = items.sort(pl.col(TITLE).str.len_chars(), ITEM_INDEX)
    catalogue = by_length[spread(len(items))[:titles]].with_columns(pl.int_range(1, pl.len() + 1).alias(ITEM_INDEX))
    # Of what users had before, half of the titles stand in for all: something has to be left to recommend.
    few, fewer = (
        dict(zip(items[ITEM], cycle(catalogue[ITEM].head(size).to_list()), strict=False))
        for size in (occurring, max(1, occurring // 2))
    )
    few_titles = titles is not None and occurring < len(items)
    for path in data.iterdir():
        if path.suffix != ".parquet" or not (few_titles or path.stem in shares):
            (out / path.name).symlink_to(path.absolute())
            continue
        table = read_table(path)
        if path.stem in shares:
            table = some_rows(table, shares[path.stem], block=BLOCK if path.stem == "samples-train" else 1)
        if few_titles and path.stem == "items":
            table = catalogue
        elif few_titles:
            stand_in = fewer if path.stem in SEEN else few
            table = table.with_columns(
                pl.col(name).replace(stand_in) for name in (ITEM, TARGET) if name in table.columns
            )
            if HISTORY in table.columns:
                table = table.with_columns(pl.col(HISTORY).list.eval(pl.element().replace(stand_in)))
        table.write_parquet(out / path.name)
