"""From a file to columns: what is in the file, with every fault of the file named."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import polars as pl

from dealrec.errors import DataError

PICKLES = (".npy", ".npz", ".pkl", ".pickle", ".joblib", ".pt", ".pth")


@dataclass(frozen=True)
class Column:
    """One column of a file; `text` when the format knows no types, so that 7 may be a number or a name.

    separator: what separates several values in one text, where the format says that they are several.
    """

    path: Path
    name: str
    values: pl.Series
    text: bool
    separator: str | None = None


@dataclass(frozen=True)
class Table:
    """A file's columns, under the names the file gives them; separators: of those that the format calls sequences."""

    path: Path
    frame: pl.DataFrame
    text: bool
    separators: Mapping[str, str] = field(default_factory=dict)

    def column(self, name: str, *, setting: str, hint: str = "") -> Column:
        """Return the column called `name`, which `setting` asked for; DataError if there is none."""
        if name in self.frame.columns:
            return Column(self.path, name, self.frame[name], self.text, self.separators.get(name))
        near = difflib.get_close_matches(name, self.frame.columns, n=1, cutoff=0.5)
        remedy = f"Set {setting} to the column's name" + (f"; did you mean '{near[0]}'?" if near else ".")
        raise DataError(f"{self.path}: no column '{name}'; there are: {', '.join(self.frame.columns)}", remedy + hint)


def read_table(path: Path) -> Table:
    """Read a CSV, TSV, Parquet or JSON Lines file, as its name ends.

    CSV and TSV are read as text throughout: guessing the types would turn an id "007" into 7.
    Raises DataError if the file is missing, empty, damaged, or of another kind.
    """
    ending = _ending(path, accepted=READERS)
    frame = _guarded(path, READERS[ending])
    text = ending.startswith((".csv", ".tsv"))
    return Table(path, _filled(path, _trimmed(frame) if text else frame), text)


def read_recbole(path: Path, *, ending: str) -> Table:
    """Read a RecBole atomic file: tab-separated, no quoting, a header of `name:type`, everything as text.

    Columns of sequences (`name:token_seq`) stay texts, with a space as their separator.
    Raises DataError as `read_table` does, and if two columns have the same name.
    """
    _ending(path, accepted=(ending,))
    frame = _guarded(
        path, lambda file: pl.read_csv(file, separator="\t", quote_char=None, infer_schema=False, glob=False)
    )
    named, sequences = without_types(path, frame)
    return Table(path, _filled(path, _trimmed(named)), text=True, separators=sequences)


def without_types(path: Path, frame: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, str]]:
    """Columns of a RecBole file under their names alone, and the separator of each that its type calls a sequence.

    Raises DataError if two columns then have the same name.
    """
    names = [name.rsplit(":", 1)[0] for name in frame.columns]
    if len(set(names)) < len(names):
        raise DataError(f"{path}: two columns have the same name: {', '.join(names)}", "Rename one of them.")
    sequences = {name: " " for name, typed in zip(names, frame.columns, strict=True) if typed.endswith("_seq")}
    return frame.rename(dict(zip(frame.columns, names, strict=True))), sequences


def refuse(column: Column, bad: pl.Series, *, fault: str, remedy: str) -> None:
    """Raise DataError with the count, the first value and its row, if any row of the mask `bad` is true.

    Rows are counted from 1, the header not included.
    """
    rows = bad.fill_null(False).arg_true()
    if len(rows) == 0:
        return
    value = repr(column.values[int(rows[0])])
    value = value if len(value) <= 80 else value[:77] + "..."
    raise DataError(
        f"{column.path}: column '{column.name}' {fault} in {len(rows):,} of {len(bad):,} rows;"
        f" the first is {value} in data row {int(rows[0]) + 1:,}",
        remedy,
    )


def unreadable(path: Path, error: BaseException) -> NoReturn:
    """Raise the DataError for a file that a reader gave up on."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise DataError(
        f"{path}: cannot be read: {reason}", "Check that the file is complete, or write it again."
    ) from error


def require_file(path: Path) -> None:
    """Raise DataError unless `path` is a file with something in it."""
    try:
        str(path).encode()
        size = path.stat().st_size
    except UnicodeEncodeError as error:
        raise DataError(f"{str(path)!a}: the name of the file is not UTF-8", "Rename it.") from error
    except OSError as error:
        raise DataError(f"{path}: no such file", "Check data.interactions and data.items.") from error
    if not path.is_file():
        raise DataError(f"{path}: not a file", "Name the file itself in data.interactions or data.items.")
    if size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes)", "Write it again.")


def _read_jsonl(path: Path) -> pl.DataFrame:
    # A path would be taken for a glob pattern; and types are settled by all rows, since a late "x1" makes ids text.
    with path.open("rb") as file:
        return pl.read_ndjson(file, infer_schema_length=None)


READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".csv": lambda path: pl.read_csv(path, infer_schema=False, glob=False),
    ".csv.gz": lambda path: pl.read_csv(path, infer_schema=False, glob=False),
    ".tsv": lambda path: pl.read_csv(path, separator="\t", infer_schema=False, glob=False),
    ".tsv.gz": lambda path: pl.read_csv(path, separator="\t", infer_schema=False, glob=False),
    ".parquet": lambda path: pl.read_parquet(path, glob=False),
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".ndjson.gz": _read_jsonl,
}


def _ending(path: Path, *, accepted: dict[str, Callable[[Path], pl.DataFrame]] | tuple[str, ...]) -> str:
    name = path.name.lower()
    kinds = ", ".join(accepted)
    if name.endswith(PICKLES):
        raise DataError(
            f"{path}: may hold a pickle, which can run any code when it is loaded, so it is refused",
            f"Save it as one of: {kinds}.",
        )
    found = [ending for ending in accepted if name.endswith(ending)]
    if not found:
        raise DataError(f"{path}: unknown kind of file", f"Accepted are: {kinds}; see also data.format.")
    return found[0]


def _guarded(path: Path, reader: Callable[[Path], pl.DataFrame]) -> pl.DataFrame:
    require_file(path)
    try:
        return reader(path)
    except pl.exceptions.NoDataError as error:
        raise DataError(f"{path}: the file is empty", "Write it again.") from error
    # A damaged Parquet file can make the reader panic, which is no Exception.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        unreadable(path, error)


def _filled(path: Path, frame: pl.DataFrame) -> pl.DataFrame:
    if frame.height == 0:
        raise DataError(f"{path}: the file is empty (no rows)", "Write it again.")
    return frame


def _trimmed(frame: pl.DataFrame) -> pl.DataFrame:
    # Blank lines at the end of a text file are read as rows of nulls.
    full = frame.select(pl.any_horizontal(pl.all().is_not_null())).to_series().arg_true()
    return frame.head(int(full[-1]) + 1) if len(full) else frame.clear()
