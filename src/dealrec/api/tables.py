"""Tables in memory: polars, pandas, pyarrow and datasets, each taken as it is and given back as the same kind.

A kind is told by the names of its class, so none of these packages is imported unless one of its tables was given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from typing_extensions import TypeVar

from dealrec.errors import DataError, first_line

if TYPE_CHECKING:
    import polars as pl

    from dealrec.config import Columns

Kind = Literal["polars", "polars.lazy", "pandas", "pyarrow", "datasets"]


class HasColumns(Protocol):
    """A table of polars or pandas."""

    @property
    def columns(self) -> Any:
        """The names of its columns."""


class HasColumnNames(Protocol):
    """A table of pyarrow or datasets."""

    @property
    def column_names(self) -> Any:
        """The names of its columns."""


Table: TypeAlias = HasColumns | HasColumnNames
TableT = TypeVar("TableT", bound=Table, default="pl.DataFrame")

# By package and name of the class, since where in the package it stands changes from release to release.
_KINDS: dict[tuple[str, str], Kind] = {
    ("polars", "DataFrame"): "polars",
    ("polars", "LazyFrame"): "polars.lazy",
    ("pandas", "DataFrame"): "pandas",
    ("pyarrow", "Table"): "pyarrow",
    ("datasets", "Dataset"): "datasets",
}
_REMEDIES = {
    ("datasets", "DatasetDict"): "Give one of its splits, such as {name}['train'].",
    ("datasets", "IterableDataset"): "Load it without streaming, as a datasets.Dataset.",
    ("datasets", "IterableDatasetDict"): "Load one of its splits without streaming, as a datasets.Dataset.",
}
_OTHERS = "Give a file or a table of polars, pandas, pyarrow or datasets; polars.DataFrame({name}) may make one of it."
_COLUMNS = {
    "interactions": ("user", "item", "timestamp", "rating", "split"),
    "items": ("item", "title", "category"),
}


def kind_of(table: object, *, name: str) -> Kind:
    """What kind of table it is; subclasses count. Raises DataError, which calls it `name`, for anything else."""
    classes = [(cls.__module__.partition(".")[0], cls.__name__) for cls in type(table).__mro__]
    for key in classes:
        if key in _KINDS:
            return _KINDS[key]
    remedy = next((_REMEDIES[key] for key in classes if key in _REMEDIES), _OTHERS)
    class_name = ".".join(classes[0]).removeprefix("builtins.")
    raise DataError(f"{name} is a {class_name}, not a table that can be read", remedy.format(name=name))


def polars_frame(table: object, columns: Columns, *, name: str) -> pl.DataFrame:
    """The columns of a table that the settings name, under their own names; of a lazy table no others are computed.

    name: interactions or items. An index of pandas is no column. Raises DataError for a table without rows or without
    one of the columns, and for a column that is no single type.
    """
    import polars as pl

    kind = kind_of(table, name=name)
    names = _column_names(table, kind, name=name)
    needed = _needed_columns(names, columns, name=name, hint=_index_hint(table, kind))
    reader = _reader(table, kind, needed, name=name)
    frame = pl.DataFrame([_series(reader, names.index(column), column, name=name) for column in needed]).rechunk()
    if frame.height == 0:
        raise DataError(f"{name}: the table has no rows", "Check how it was made.")
    return frame


def table_of_kind(frame: pl.DataFrame, kind: Kind) -> Any:
    """The table as another kind: texts and lists as that kind has them itself, no index."""
    match kind:
        case "polars":
            return frame
        case "polars.lazy":
            return frame.lazy()
        case "pandas":
            import pandas

            return pandas.DataFrame(frame.to_dict(as_series=False))
        case "pyarrow":
            import pyarrow

            # Not polars' own way, whose large strings and large lists go with no table that others made.
            return pyarrow.table(frame.to_dict(as_series=False))
        case "datasets":
            import datasets

            return datasets.Dataset.from_dict(frame.to_dict(as_series=False))


def write_whole(table: Any, path: Path, *, name: str) -> None:
    """Write a table with all its columns as Parquet, of pyarrow and datasets with what their schema says besides."""
    import polars as pl

    match kind_of(table, name=name):
        case "polars" | "polars.lazy":
            table.lazy().collect().write_parquet(path)
        case "pandas":
            table.to_parquet(path, index=False)
        case "pyarrow":
            import pyarrow.parquet as pq

            pq.write_table(table, path)
        case "datasets":
            table.with_format(None).to_parquet(path)
    if not pl.scan_parquet(path, glob=False).select(pl.len()).collect().item():
        raise DataError(f"{name}: the table has no rows", "Check how it was made.")


def rows_of(table: Any, places: Sequence[int], *, name: str) -> Any:
    """Some rows of a table, by their places, as a table of the same kind."""
    match kind_of(table, name=name):
        case "polars":
            return table[list(places)]
        case "polars.lazy":
            return table.collect()[list(places)].lazy()
        case "pandas":
            return table.iloc[list(places)]
        case "pyarrow":
            return table.take(list(places))
        case "datasets":
            return table.select(places)


def _column_names(table: Any, kind: Kind, *, name: str) -> list[str]:
    import polars as pl

    if kind == "polars.lazy":
        try:
            return list(table.collect_schema().names())
        except (pl.exceptions.PolarsError, OSError) as error:
            raise _unreadable(name, error, "Check that it can be collected.") from error
    return [str(column) for column in (table.columns if kind in ("polars", "pandas") else table.column_names)]


def _needed_columns(names: Sequence[str], columns: Columns, *, name: str, hint: str) -> list[str]:
    """The columns that the settings name, all of which are there, once each."""
    import polars as pl

    from dealrec.data.readers.tables import Table as Opened
    from dealrec.data.sources import NO_TIMES

    empty = Opened(Path(name), pl.DataFrame(schema=dict.fromkeys(names, pl.Null)), text=False)
    needed: dict[str, None] = {}
    for key in _COLUMNS[name]:
        column = getattr(columns, key)
        if column is None:
            continue
        empty.column(column, setting=f"data.columns.{key}", hint=(NO_TIMES if key == "timestamp" else "") + hint)
        if names.count(column) > 1:
            raise DataError(f"{name}: {names.count(column)} columns are called '{column}'", "Rename all but one.")
        needed[column] = None
    return list(needed)


def _index_hint(table: Any, kind: Kind) -> str:
    levels = [str(level) for level in table.index.names if level is not None] if kind == "pandas" else []
    return f" The index ({', '.join(levels)}) is no column: reset_index() makes it one." if levels else ""


def _reader(table: Any, kind: Kind, needed: Sequence[str], *, name: str) -> Callable[[int, str], pl.Series]:
    """A function that makes a series of a column, which is told by its place and its name."""
    import polars as pl

    match kind:
        case "polars":
            return lambda _place, column: table.get_column(column)
        case "polars.lazy":
            try:
                collected = table.select(needed).collect()
            except (pl.exceptions.PolarsError, OSError) as error:
                raise _unreadable(name, error, "Check that it can be collected.") from error
            return lambda _place, column: collected.get_column(column)
        case "pandas":  # by place, for a name may be a number, or stand twice
            return lambda place, _column: pl.Series(pl.from_pandas(table.iloc[:, place]))
        case "pyarrow":
            return lambda place, _column: pl.Series(table.column(place))
        case "datasets":
            # Its own format may hide columns or make tensors of them; as arrow it also puts a filter's rows together.
            rows = table.with_format("arrow").select_columns(list(needed))[:]
            return lambda _place, column: pl.Series(rows.column(column))


def _series(reader: Callable[[int, str], pl.Series], place: int, column: str, *, name: str) -> pl.Series:
    import polars as pl

    remedy = "Store numbers, text or dates in it, one type throughout; in pandas for instance by astype(str)."
    try:
        series = reader(place, column).alias(column)
    # pyarrow's errors derive from these; each of them has some value that has no type in common with the others.
    except (
        *(ValueError, TypeError, ArithmeticError, NotImplementedError),
        *(pl.exceptions.PolarsError, pl.exceptions.PanicException),  # of a type that polars does not know
    ) as error:
        raise _unreadable(f"{name}: column '{column}'", error, remedy) from error
    except ImportError as error:
        raise _unreadable(f"{name}: column '{column}'", error, "Install what is missing.") from error
    if series.dtype == pl.Object:
        raise DataError(f"{name}: column '{column}' holds Python objects", remedy)
    return series


def _unreadable(subject: str, error: BaseException, remedy: str) -> DataError:
    return DataError(f"{subject} cannot be read: {first_line(error)}", remedy)
