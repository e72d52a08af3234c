"""From the user's files, in any of three formats, to interactions and items that can be relied upon."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import polars as pl

from dealrec import columns
from dealrec.config import DataConfig
from dealrec.data import values
from dealrec.data.categories import categories, warn_of_categories
from dealrec.data.readers.faults import reading
from dealrec.data.readers.parts import files_of
from dealrec.data.readers.release import read_release, release_files
from dealrec.data.readers.tables import Column, Table, only, read_recbole, read_table
from dealrec.data.titles import item_table

NO_TIMES = " Set it to null to take the order of the rows."


@dataclass(frozen=True)
class Source:
    """What the files hold, checked.

    interactions: user_id and item_id (Int64 or String each), timestamp (Int64 or Float64), in file order;
    rating (Float64) and split (train, valid or test) if they are mapped.
    items: item_id, of the same type as in the interactions, and title.
    categories: item_id and category (List(String), empty for none) of the same items; None if they are not mapped.
    """

    interactions: pl.DataFrame
    items: pl.DataFrame
    categories: pl.DataFrame | None = None


def files(config: DataConfig) -> list[Path]:
    """Return the files that `read` reads, interactions first, of a folder its parts; a file need not exist."""
    items = files_of(config.items) if config.items is not None else []
    if config.format == "rows":
        named = [config.rows, config.valid_rows, config.test_rows]
        lists = [[each] if isinstance(each, Path) else each for each in named if each is not None]
        return [*(file for each in lists for path in each for file in files_of(path)), *items]
    if config.format == "dealrec":
        return [*release_files(config.interactions).values(), *items]
    return [*files_of(config.interactions), *items]


def read(config: DataConfig, *, warn: Callable[[str], None]) -> Source:
    """Read interactions and items as `config` describes them.

    `warn` is called with one line for each peculiarity that is accepted, with its count.
    Raises DataError, which names the file and where possible the column, the value and the row, for a file that is
    missing, empty, damaged or of an unknown kind, a missing column, and a value that cannot be what it stands for.
    """
    if config.format == "dealrec":
        interactions, log_ids = _release(config, warn=warn)
    else:
        mapped = config.columns
        log_columns = (mapped.user, mapped.item, mapped.timestamp, mapped.rating, mapped.split)
        table = _open(config.interactions, config, log_columns, ending=".inter", warn=warn)
        with reading(config.interactions):
            log_ids = values.ids(table.column(config.columns.item, setting="data.columns.item"))
            interactions = _interactions(table, config, warn=warn)
    title_columns = (config.columns.item, config.columns.title, config.columns.category)
    table = _open(cast("Path", config.items), config, title_columns, ending=".item", warn=warn)
    with reading(table.path):
        table_ids = values.ids(table.column(config.columns.item, setting="data.columns.item"))
        title = values.titles(table.column(config.columns.title, setting="data.columns.title"))
    log_items, table_items = values.reconcile(log_ids, table_ids)
    interactions = interactions.with_columns(log_items.alias(columns.ITEM))
    repeats = interactions.height - interactions.select(columns.USER, columns.ITEM).n_unique()
    if repeats and config.repeats != "first":
        warn(
            f"{repeats:,} of {interactions.height:,} interactions repeat an earlier one of the same user and item;"
            " where that is a test item, evaluate.exclude_seen makes it a miss: set it to false if people do come back"
        )
    items = item_table(table_items, title, warn=warn)
    with reading(table.path):
        return Source(interactions, items, _categories(table, table_items, config, warn=warn))


def _open(
    path: Path, config: DataConfig, names: Collection[str | None], *, ending: str, warn: Callable[[str], None]
) -> Table:
    """Read the columns of those names, and nothing else of the file."""
    if config.format == "recbole":
        table = read_recbole(path, only(names), ending=ending)
    else:
        table = read_table(path, only(names))
    for warning in table.warnings:
        warn(warning)
    return table


def _categories(
    table: Table, ids: pl.Series, config: DataConfig, *, warn: Callable[[str], None]
) -> pl.DataFrame | None:
    names = config.columns
    if names.category is None:
        return None
    column = table.column(names.category, setting="data.columns.category")
    by_item = pl.DataFrame(
        {columns.ITEM: ids, columns.CATEGORY: categories(column, separator=names.category_separator)}
    )
    by_item = by_item.sort(pl.col(columns.CATEGORY).list.len() == 0, maintain_order=True)  # rows without any last
    by_item = by_item.unique(columns.ITEM, keep="first", maintain_order=True)
    warn_of_categories(by_item[columns.CATEGORY], warn=warn)
    return by_item


def _release(config: DataConfig, *, warn: Callable[[str], None]) -> tuple[pl.DataFrame, values.Ids]:
    if config.split != "column":
        warn(f"data.split is '{config.split}', but the dealrec files come split: their own split is used")
    interactions = read_release(config.interactions)
    column = Column(config.interactions, columns.ITEM, interactions[columns.ITEM], text=False)
    return interactions, values.ids(column)


def _interactions(table: Table, config: DataConfig, *, warn: Callable[[str], None]) -> pl.DataFrame:
    """Return the interactions, all but their item ids, which depend on the items file too."""
    names = config.columns
    user = values.ids(table.column(cast("str", names.user), setting="data.columns.user")).values
    fields = [user.alias(columns.USER), pl.repeat(None, len(user), eager=True).alias(columns.ITEM)]
    if names.timestamp is None:
        fields.append(pl.int_range(len(user), dtype=pl.Int64, eager=True).alias(columns.TIMESTAMP))
    else:
        column = table.column(names.timestamp, setting="data.columns.timestamp", hint=NO_TIMES)
        fields.append(values.timestamps(column, warn=warn))
    if names.rating is not None:
        fields.append(values.ratings(table.column(names.rating, setting="data.columns.rating")))
    if names.split is not None:
        fields.append(values.splits(table.column(names.split, setting="data.columns.split")))
    return pl.DataFrame(fields)
