"""The tables of a run directory: how each is written and read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from dealrec.columns import HISTORY, ITEM, ITEM_INDEX, SAMPLE, TARGET, TITLE
from dealrec.errors import DealrecError

Id = int | str
Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = ("train", "valid", "test")


def write_table(path: Path, table: pl.DataFrame, *, key: str | Sequence[str]) -> None:
    """Write Parquet sorted by its key, appearing at once under its name."""
    staging = path.with_name(path.name + ".tmp")
    table.sort(key).write_parquet(staging)
    staging.rename(path)


def read_samples(path: Path) -> pl.DataFrame:
    """sample_id, user_id, history, target; sorted by sample_id."""
    return pl.read_parquet(path).sort(SAMPLE)


@dataclass(frozen=True)
class Catalogue:
    """The items of a run. index: id -> internal index from 1; ids: by internal index - 1."""

    ids: list[Id]
    titles: dict[Id, str]
    index: dict[Id, int]

    def __len__(self) -> int:
        return len(self.ids)


def read_catalogue(path: Path) -> Catalogue:
    """From `data/items.parquet`."""
    table = pl.read_parquet(path).sort(ITEM_INDEX)
    ids = table[ITEM].to_list()
    return Catalogue(
        ids,
        dict(zip(ids, table[TITLE].to_list(), strict=True)),
        dict(zip(ids, table[ITEM_INDEX].to_list(), strict=True)),
    )


def index_sequences(samples: pl.DataFrame, catalogue: Catalogue) -> list[list[int]]:
    """Each sample as item indices, history first, the target last."""
    index = catalogue.index
    return [
        [*(index[item] for item in history), index[target]]
        for history, target in zip(samples[HISTORY].to_list(), samples[TARGET].to_list(), strict=True)
    ]


def pairs(samples: pl.DataFrame) -> Iterator[tuple[list[Id], Id]]:
    """History and target of each sample, in the order of the rows."""
    return zip(samples[HISTORY].to_list(), samples[TARGET].to_list(), strict=True)


def join_scores(samples: pl.DataFrame, scores: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Join score tables to samples by sample_id. A sample without a score is a fault and raises DealrecError."""
    for name, table in scores.items():
        joined = samples.join(table.select(SAMPLE, name), on=SAMPLE, how="left", validate="1:1")
        missing = joined.filter(pl.col(name).is_null())[SAMPLE]
        if len(missing):
            raise DealrecError(
                f"{len(missing)} samples have no {name} score, the first {missing.head(5).to_list()}",
                "Delete the stage's folder in the run directory and run again.",
            )
        samples = joined
    return samples.sort(SAMPLE)


def merge_shards(paths: Iterable[Path], *, expected: pl.Series) -> pl.DataFrame:
    """One table from shards; each of the expected sample ids must occur exactly once."""
    merged = pl.concat([pl.read_parquet(path) for path in paths])
    if not merged[SAMPLE].sort().equals(expected.sort(), check_names=False):
        raise DealrecError(
            f"The shards hold {len(merged)} rows for {len(expected)} samples, or other ids",
            "Delete the stage's .part folder in the run directory and run again.",
        )
    return merged
