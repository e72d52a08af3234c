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


def with_indices(samples: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """History and target as internal indices from 1, in the place of ids. items: item_id and item_index."""
    ids, indices = items[ITEM], items[ITEM_INDEX]
    return samples.with_columns(
        pl.col(HISTORY).list.eval(pl.element().replace_strict(ids, indices, return_dtype=pl.Int64)),
        pl.col(TARGET).replace_strict(ids, indices, return_dtype=pl.Int64),
    )


def sequences(samples: pl.DataFrame, items: pl.DataFrame) -> pl.Series:
    """Each sample as a list of internal indices, history first, the target last; in the order of the rows."""
    return with_indices(samples, items).select(pl.concat_list(HISTORY, TARGET).alias(ITEM))[ITEM]


def pairs(samples: pl.DataFrame) -> Iterator[tuple[list[Id], Id]]:
    """History and target of each sample, in the order of the rows."""
    return zip(samples[HISTORY].to_list(), samples[TARGET].to_list(), strict=True)
