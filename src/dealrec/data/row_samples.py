"""Samples of training rows of the user's own: which rows are of one interaction, and which part each is of."""

import numpy as np
import polars as pl

from dealrec.columns import HISTORY, ITEM, ROW, ROWS, SAMPLE, TARGET, TIMESTAMP, USER

# Of a table of rows, beside row, user_id, history, target and timestamp.
INTERACTION = "interaction"  # what rows of one share, where the user has named it
CONTENT = "content"  # a number by which equal texts are told


def samples_of_rows(table: pl.DataFrame, *, single: bool = False) -> pl.DataFrame:
    """One sample for each interaction: sample_id, user_id, history, target, timestamp, rows, by their first rows.

    table: as in `Rows`. Of one interaction are those that share what data.columns.interaction names, or else user,
    history, target and time; single: where it names nothing each row is a sample of its own. A sample of no user is a
    user's only one.
    """
    key = [ROW] if single else [USER, HISTORY, TARGET, TIMESTAMP]
    if table[INTERACTION].count():
        key = [INTERACTION]
    about = table.with_columns(pl.col(ROW).alias(ROWS))
    first = [pl.col(name).first() for name in (USER, HISTORY, TARGET, TIMESTAMP) if name not in key]
    samples = about.group_by(key, maintain_order=True).agg(*first, pl.col(ROWS))
    samples = samples.with_row_index(SAMPLE).with_columns(pl.col(SAMPLE).cast(pl.Int64))
    user = pl.col(USER) if table[USER].count() else pl.col(ROWS).list.first()
    time = [TIMESTAMP] if samples[TIMESTAMP].dtype != pl.Null else []
    return samples.select(SAMPLE, user.alias(USER), HISTORY, TARGET, *time, ROWS)


def split_rows(samples: pl.DataFrame, *, share: float, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Training and validation samples: the latest share, where there are times, else drawn; each numbered anew."""
    count = max(1, round(share * len(samples)))
    if TIMESTAMP in samples.columns:
        order = samples.select(pl.col(TIMESTAMP).arg_sort(descending=True)).to_series().to_numpy()
    else:
        order = np.random.default_rng(seed).permutation(len(samples))
    held = np.zeros(len(samples), dtype=bool)
    held[order[:count]] = True
    return numbered(samples.filter(~held)), numbered(samples.filter(held))


def numbered(samples: pl.DataFrame) -> pl.DataFrame:
    """The same with sample_ids from 0 on."""
    return samples.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias(SAMPLE))


def isolated(histories: pl.Series, targets: pl.Series) -> pl.Series:
    """Which samples have no item that any other has: a surrogate could learn nothing of them."""
    place = "place"
    items = pl.DataFrame({place: range(len(targets)), ITEM: histories, TARGET: targets})
    items = items.with_columns(pl.concat_list(ITEM, TARGET).list.unique()).explode(ITEM)
    shared = items.filter(pl.col(ITEM).is_duplicated())[place].unique()
    return ~pl.Series(range(len(targets)), dtype=pl.Int64).is_in(shared.implode())


def mixed_interactions(table: pl.DataFrame) -> int:
    """How many of the interactions that the user names have rows that differ in user, history, target or time."""
    differing = table.group_by(INTERACTION).agg(pl.struct(USER, HISTORY, TARGET, TIMESTAMP).n_unique().alias(ROWS))
    return len(differing.filter(pl.col(ROWS) > 1))
