"""Rows of a user's files written to a file of their kind, as they stand."""

from __future__ import annotations

import codecs
import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from dealrec.data.readers.records import PARQUET, ending, is_document, opened, raw_records, separator_of
from dealrec.errors import ConfigError, DataError, first_line

_BLOCK = 8192  # rows of a Parquet file that are in memory at a time


def copy_records(files: Sequence[Path], kept: NDArray[np.bool_], folder: Path) -> Path:
    """Write the rows that are kept as they stand, in their order, to one file `train` with the ending of the files.

    kept: of each row of all files, in their order. A Parquet file keeps its schema, with what it says beside the types,
    and its compression. Raises DataError where there are not as many rows.
    """
    out = folder / f"train{ending(files[0])}"
    copy = _copy_parquet if out.suffix == PARQUET else _copy_text
    count = copy(files, kept, out)
    if count != len(kept):
        raise DataError(
            f"{files[0]}: there are {count:,} rows, and there were {len(kept):,} when they were selected from",
            "Run again: the file has changed.",
        )
    return out


def _copy_text(files: Sequence[Path], kept: NDArray[np.bool_], out: Path) -> int:
    with opened(files[0]) as file:
        mark = codecs.BOM_UTF8 if file.read(3) == codecs.BOM_UTF8 else b""
        file.seek(len(mark))
        document = separator_of(files[0]) is None and is_document(file)
    count, before, end = 0, b"", b"\n"  # the row that was written last; how lines end
    with _created(out) as target:
        target.write(mark + (b"[\n" if document else b""))
        for number, path in enumerate(files):
            for place, (_, record) in enumerate(raw_records(path)):
                header = separator_of(path) is not None and place == 0
                count += not header
                end = b"\r\n" if record.endswith(b"\r\n") else b"\n" if record.endswith(b"\n") else end
                wanted = not number if header else count <= len(kept) and kept[count - 1]
                if not wanted:
                    continue
                if before:
                    target.write(b",\n" if document else b"" if before.endswith(b"\n") else end)
                target.write(record)
                before = record
        target.write(b"\n]\n" if document else b"")
    return count


def _copy_parquet(files: Sequence[Path], kept: NDArray[np.bool_], out: Path) -> int:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigError("Rows of Parquet are written with pyarrow", "Install it: pip install pyarrow") from error
    first = pq.ParquetFile(files[0])
    codec = first.metadata.row_group(0).column(0).compression if first.metadata.num_row_groups else "SNAPPY"
    options = {"compression": "NONE" if codec == "UNCOMPRESSED" else codec}
    try:
        schema = pa.unify_schemas([pq.read_schema(path) for path in files], promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(
            f"{files[0]}: a column has another type in another part ({first_line(error)})", "Give it one type in all."
        ) from error
    count, waiting = 0, [schema.empty_table()]
    with pq.ParquetWriter(out, schema, **options) as writer:
        for path in files:
            for batch in pq.ParquetFile(path).iter_batches(batch_size=_BLOCK):
                mask = kept[count : count + len(batch)]
                waiting.append(pa.table(batch.take(np.flatnonzero(mask))).cast(schema))
                count += len(batch)
                if sum(map(len, waiting)) >= _BLOCK:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting.clear()
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    return count


@contextmanager
def _created(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, packed where its name says so, the same bytes whenever it is written."""
    with path.open("wb") as raw:
        if path.name.lower().endswith(".gz"):
            with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed:
                yield cast("IO[bytes]", packed)
        else:
            yield raw
