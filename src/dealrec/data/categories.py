"""The categories of the items: of each none, one or several, as clean text."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from dealrec.columns import CATEGORY
from dealrec.data.readers.tables import Column, refuse
from dealrec.data.titles import clean
from dealrec.data.values import missing, wrong_type

MANY = 1000
_ROW = "row"
_REMEDY = "Store categories as text, as integers, or as lists of them."


def categories(column: Column, *, separator: str | None) -> pl.Series:
    """Read the categories of each row as List(String): clean as titles are, each once, in their order; empty for none.

    separator: what separates several in one text; None: the format's own, or else a text is one category.
    Raises DataError for a type that holds no names, such as lists of lists, and for fractions.

    >>> from pathlib import Path
    >>> column = Column(Path("x.csv"), "genre", pl.Series(["War| Drama |War", "||", None]), text=True)
    >>> categories(column, separator="|").to_list()
    [['War', 'Drama'], [], []]
    """
    flat = _texts(column)
    separator = separator or column.separator
    if separator is not None:
        flat = flat.with_columns(pl.col(CATEGORY).str.split(separator)).explode(CATEGORY)
    names = clean(flat[CATEGORY])
    filled = flat.with_columns(names).filter(~missing(names)).unique(maintain_order=True)
    lists = filled.group_by(_ROW, maintain_order=True).agg(CATEGORY)
    rows = pl.DataFrame({_ROW: pl.int_range(len(column.values), eager=True)})
    return rows.join(lists, on=_ROW, how="left", maintain_order="left")[CATEGORY].fill_null([])


def warn_of_categories(items: pl.Series, *, warn: Callable[[str], None]) -> None:
    """Warn of a column that gives no item a category, and of one with so many that it may be no such column."""
    count = items.explode().drop_nulls().n_unique()
    if count == 0:
        warn(f"none of {len(items):,} items has a category; the report does without")
    elif count > MANY:
        warn(
            f"{count:,} different categories of {len(items):,} items, of which the report shows the largest alone:"
            " check data.columns.category and data.columns.category_separator"
        )


def _texts(column: Column) -> pl.DataFrame:
    """Row and category as text, as many rows for each row of the file as its list is long."""
    table = pl.DataFrame({_ROW: pl.int_range(len(column.values), eager=True), CATEGORY: column.values})
    if isinstance(column.values.dtype, pl.List | pl.Array):
        table = table.explode(CATEGORY)
    elif column.values.dtype.is_float():  # integers beside a gap
        numbers = column.values.fill_nan(None)
        fraction = (numbers != numbers.floor()) | (numbers.abs() > 2**53)  # beyond it floats skip whole numbers
        refuse(column, fraction, fault="has categories that are no whole numbers", remedy=_REMEDY)
        table = table.with_columns(numbers.cast(pl.Int64).alias(CATEGORY))
    kind = table.schema[CATEGORY]
    if not (kind.is_integer() or isinstance(kind, pl.String | pl.Categorical | pl.Enum | pl.Null)):
        wrong_type(column, "categories", _REMEDY)
    return table.with_columns(pl.col(CATEGORY).cast(pl.String))
