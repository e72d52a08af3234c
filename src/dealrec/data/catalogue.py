"""The catalogue of a run: item ids, titles and internal indices; and samples as indices."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import polars as pl

from dealrec.columns import HISTORY, ITEM, ITEM_INDEX, TARGET, TITLE, Id


@dataclass(frozen=True)
class Catalogue:
    """The items of a run. index: id -> internal index from 1; ids: by internal index - 1."""

    ids: list[Id]
    titles: dict[Id, str]
    index: dict[Id, int]

    @classmethod
    def of(cls, items: pl.DataFrame) -> Self:
        """items: item_id, title, item_index, as in `data/items.parquet`."""
        table = items.sort(ITEM_INDEX)
        ids = table[ITEM].to_list()
        return cls(
            ids,
            dict(zip(ids, table[TITLE].to_list(), strict=True)),
            dict(zip(ids, table[ITEM_INDEX].to_list(), strict=True)),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def sequences(self, samples: pl.DataFrame) -> list[list[int]]:
        """Each sample as internal indices, history first, the target last; in the order of the rows."""
        index = self.index
        return [[*(index[item] for item in history), index[target]] for history, target in pairs(samples)]


def indexed(items: pl.DataFrame, samples: pl.DataFrame) -> pl.Series:
    """`Catalogue.sequences` as a Series of lists, nothing of which is held in Python. items: as for `Catalogue.of`."""
    ids, indices = items[ITEM], items[ITEM_INDEX]
    history = pl.col(HISTORY).list.eval(pl.element().replace_strict(ids, indices, return_dtype=pl.Int64))
    target = pl.col(TARGET).replace_strict(ids, indices, return_dtype=pl.Int64)
    return samples.select(pl.concat_list(history, target).alias(ITEM))[ITEM]


def pairs(samples: pl.DataFrame) -> Iterator[tuple[list[Id], Id]]:
    """History and target of each sample, in the order of the rows."""
    return zip(samples[HISTORY].to_list(), samples[TARGET].to_list(), strict=True)
