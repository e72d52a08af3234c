"""Signals of samples: which stage computes each, and a table of those that a method reads."""

from collections.abc import Iterable

import polars as pl

from dealrec.columns import (
    CLUSTER_SHARE,
    HISTORY,
    HISTORY_LENGTH,
    ITEM,
    ITEM_INDEX,
    OF_DATA,
    OF_TEXT,
    SAMPLE,
    TARGET,
    TARGET_CLUSTER,
    TRAIN_SHARE,
    VALID_SHARE,
)
from dealrec.data.catalogue import with_indices
from dealrec.engine.run_directory import read_table
from dealrec.errors import DealrecError
from dealrec.stages.context import Context
from dealrec.stages.samples import FILES, selectable

DATA_FILES = (*FILES, "data/items.parquet")
_BESIDE = {CLUSTER_SHARE: TARGET_CLUSTER}  # signals that stand in the table of another


def files_of(signals: Iterable[str]) -> tuple[str, ...]:
    """The tables in a run directory that the signals stand in, but for those that follow from the data."""
    return tuple(sorted({_file(name) for name in signals if name not in OF_DATA}))


def _file(signal: str) -> str:
    return f"{_BESIDE.get(signal, signal)}/scores.parquet"


def signal_table(context: Context, signals: Iterable[str], candidates: pl.DataFrame) -> pl.DataFrame:
    """sample_id and the signals of the candidates, sorted by sample_id. candidates: data_signals, or some of its rows.

    A candidate that lacks a score is a fault and raises DealrecError.
    """
    table = _with_scores(context, candidates, [name for name in signals if name not in OF_DATA])
    return table.select(SAMPLE, *signals).sort(SAMPLE)


def valid_table(context: Context, signals: Iterable[str], valid: pl.DataFrame) -> pl.DataFrame:
    """The validation samples, as `data_signals` has them, with those of the signals that are of text."""
    return _with_scores(context, valid, [name for name in signals if name in OF_TEXT])


def _with_scores(context: Context, table: pl.DataFrame, signals: Iterable[str]) -> pl.DataFrame:
    for name in signals:
        table = join_score(table, read_table(context.input(_file(name))), name)
    return table


def data_signals(context: Context) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What follows from the data of the samples of training, and of validation: sample_id and `OF_DATA`.

    Items are the catalogue's internal indices; ids are those of `selectable`.
    """
    index = read_table(context.input("data/items.parquet")).select(ITEM, ITEM_INDEX)
    train, valid = selectable(context)
    shares = [_shares(table, name) for table, name in ((train, TRAIN_SHARE), (valid, VALID_SHARE))]
    return _with_signals(train, shares, index), _with_signals(valid, shares, index)


def _shares(samples: pl.DataFrame, name: str) -> pl.DataFrame:
    return samples.group_by(TARGET).agg((pl.len() / max(1, len(samples))).alias(name))


def _with_signals(samples: pl.DataFrame, shares: list[pl.DataFrame], index: pl.DataFrame) -> pl.DataFrame:
    for share in shares:
        samples = samples.join(share, on=TARGET, how="left", maintain_order="left")
    return with_indices(samples, index).with_columns(
        pl.col(HISTORY).list.len().cast(pl.Int64).alias(HISTORY_LENGTH),
        pl.col(TRAIN_SHARE, VALID_SHARE).fill_null(0.0),
    )


def join_score(samples: pl.DataFrame, scores: pl.DataFrame, name: str) -> pl.DataFrame:
    """Join a table of scores by sample_id. A sample without a score is a fault and raises DealrecError."""
    joined = samples.join(scores.select(SAMPLE, name), on=SAMPLE, how="left", validate="1:1")
    missing = joined.filter(pl.col(name).is_null())[SAMPLE]
    if len(missing):
        raise DealrecError(
            f"{len(missing)} samples have no {name} score, the first {missing.head(5).to_list()}",
            "Delete the stage's folder in the run directory and run again.",
        )
    return joined
