"""Training rows of the user's own: what each is trained on, and which interaction it is of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from dealrec.columns import COMPLETION, HISTORY, LABELS, ROW, ROW_ID, TARGET, TIMESTAMP, USER
from dealrec.config import DataConfig
from dealrec.data import values
from dealrec.data.readers.layouts import SCHEMA, Layout, RowFault, Text, layout_of, learnt_text, parsed
from dealrec.data.readers.layouts import field as value_of
from dealrec.data.readers.records import names_of, record_files, records
from dealrec.data.readers.tables import Column, read_table
from dealrec.data.row_samples import CONTENT, INTERACTION
from dealrec.data.titles import item_table
from dealrec.data.vocabulary import Vocabulary, as_id, is_blank
from dealrec.errors import DataError

BLOCK = 10_000  # rows whose texts are in memory at a time
SEPARATORS = ("|", ";", "\t", ",", " ")
TITLE_KEPT = 200  # characters of what is learnt that stand in for a title


@dataclass(frozen=True)
class Rows:
    """Rows of one part, in the order of the files.

    table: row (Int64, counted from `first` on), row_id (text), timestamp as the files give it, and user_id, history
    (list), target and interaction as numbers of the vocabulary; target is null for a row without an interaction.
    titles: of targets by their numbers, from the rows.
    """

    files: tuple[Path, ...]
    table: pl.DataFrame
    titles: Mapping[int, str]
    empty: int = 0  # of completions
    bare: int = 0  # of histories
    separator: str | None = None


@dataclass
class _Reader:
    """Reads rows and has their texts written, a block at a time."""

    config: DataConfig
    write: Callable[[pl.DataFrame], None]
    first: int
    vocabulary: Vocabulary
    titles: dict[int, str] = field(default_factory=dict)
    separator: str | None = None
    empty: int = 0
    bare: int = 0
    layout: Layout | None = None
    blocks: list[pl.DataFrame] = field(default_factory=list)

    def read(self, files: Sequence[Path]) -> None:
        names: set[str] | None = None
        number = self.first
        self.separator = self.config.columns.history_separator
        for path in files:
            here, block, texts = set(names_of(path) or ()), [], []
            for row, fields in enumerate(records(path, self._wanted), start=1):
                here |= fields.keys()
                try:
                    text = self._layout(path, fields).text(fields)
                    block.append(
                        (
                            number,
                            *self._interaction(fields, text, number),
                            hash(tuple(text.values()) if COMPLETION in text else str(text)),
                        )
                    )
                except RowFault as fault:
                    raise DataError(f"{path}: row {row:,} {fault.cause}", fault.remedy) from None
                self.empty += LABELS not in text and not learnt_text(text)
                texts.append({ROW: number, ROW_ID: block[-1][1], **text})
                number += 1
                if len(block) == BLOCK:
                    self._flush(path, block, texts)
                    block, texts = [], []
            self._flush(path, block, texts)
            if names is not None and here != names:
                odd = sorted(here ^ names)[0]
                raise DataError(
                    f"{path}: its fields are not those of {files[0].name}: '{odd}' is in one of the two alone",
                    "Write all parts with the same fields; name rows of another kind in files of their own.",
                )
            names = here

    def _wanted(self, names: Any) -> list[str]:
        """Of the names of a file's columns those that are read."""
        columns = self.config.columns
        mapped = [columns.row, columns.user, columns.history, columns.target, columns.timestamp, columns.interaction]
        layout = layout_of(list(names), **_texts(self.config))
        roots = {part for name in [*mapped, *(layout.fields if layout else ())] if name for part in _roots(name)}
        return [name for name in names if name in roots]

    def _layout(self, path: Path, fields: Mapping[str, Any]) -> Layout:
        if self.layout is None:
            self.layout = layout_of(fields, **_texts(self.config))
        if self.layout is None:
            raise DataError(
                f"{path}: no fields that a model could be trained on; there are: {', '.join(fields)}",
                "Name them in data.columns: prompt and completion, messages, or input_ids and labels.",
            )
        return self.layout

    def _interaction(self, fields: Mapping[str, Any], text: Text, number: int) -> tuple[Any, ...]:
        """row_id, user_id, history, target, timestamp, interaction."""
        columns = self.config.columns
        row_id = str(number - self.first + 1) if columns.row is None else _id(fields, columns.row)
        if columns.target is None or columns.history is None:
            learnt = learnt_text(text)
            digest = hashlib.blake2b(learnt.encode(errors="replace"), digest_size=8).hexdigest()
            target = self.vocabulary.items.of(digest, "completion")
            if LABELS not in text:
                self.titles.setdefault(target, learnt[:TITLE_KEPT])
            time = None if columns.timestamp is None else _required(fields, columns.timestamp)
            return row_id, None, [], target, time, None
        history, target = value_of(fields, columns.history), value_of(fields, columns.target)
        if is_blank(target) and is_blank(history):
            return row_id, None, None, None, None, None
        items = self._history(history, columns.history)
        target = self.vocabulary.items.of(_required(fields, columns.target), columns.target)
        if not items:
            self.bare += 1
            return row_id, None, None, None, None, None
        if self.config.items is None and LABELS not in text:
            self.titles.setdefault(target, learnt_text(text)[:TITLE_KEPT])
        user, interaction = (
            None if name is None else codes.of(_required(fields, name), name)
            for name, codes in (
                (columns.user, self.vocabulary.users),
                (columns.interaction, self.vocabulary.interactions),
            )
        )
        time = None if columns.timestamp is None else _required(fields, columns.timestamp)
        return row_id, user, items, target, time, interaction

    def _history(self, value: Any, name: str) -> list[int]:
        if isinstance(value, str):
            value = self._items_of(value.strip())
        if not isinstance(value, list | tuple):
            raise RowFault(f"has no history in '{name}'", "Fill it in, or name the right field in data.columns.")
        return [self.vocabulary.items.of(item, name) for item in value]

    def _items_of(self, text: str) -> Any:
        if text[:1] in ("[", "(") and (items := parsed(text)) is not None:
            return items
        if self.separator is None:
            self.separator = next((mark for mark in SEPARATORS if mark in text), None)
        items = text.split(self.separator) if self.separator else [text]
        return [item.strip() for item in items if item.strip()]

    def _flush(self, path: Path, block: list[tuple[Any, ...]], texts: list[dict[str, Any]]) -> None:
        if not block:
            return
        names = (ROW, ROW_ID, USER, HISTORY, TARGET, TIMESTAMP, INTERACTION, CONTENT)
        columns = dict(zip(names, map(list, zip(*block, strict=True)), strict=True))
        times = columns.pop(TIMESTAMP)
        schema = dict.fromkeys(columns, pl.Int32()) | {
            ROW: pl.Int64(),
            ROW_ID: pl.String(),
            HISTORY: pl.List(pl.Int32),
            CONTENT: pl.Int64(),
        }
        try:
            series = pl.Series(TIMESTAMP, times, strict=not any(isinstance(time, float) for time in times))
        except (TypeError, pl.exceptions.PolarsError) as error:
            raise DataError(
                f"{path}: column '{self.config.columns.timestamp}' holds times of several types",
                "Write all of them as numbers, or all as text.",
            ) from error
        self.blocks.append(pl.DataFrame(columns, schema=schema).with_columns(series))
        self.write(pl.DataFrame(texts, schema={ROW: pl.Int64, ROW_ID: pl.String, **SCHEMA}))


def read_rows(
    config: DataConfig,
    locations: Path | Sequence[Path],
    *,
    setting: str,
    write: Callable[[pl.DataFrame], None],
    vocabulary: Vocabulary,
    first: int = 0,
) -> Rows:
    """Read rows in the order of the files.

    setting: that names them. write: called with the texts of a block of rows: row, row_id and the columns of
    `layouts.SCHEMA`. vocabulary: grows by what they name. first: number of the first row. Raises DataError, with file
    and row, for a row that lacks what data.columns names, ids that repeat, a mask without a label, text that is not
    UTF-8, and parts with other fields.
    """
    files = tuple(files_of_rows(locations, setting=setting))
    reader = _Reader(config, write, first, vocabulary)
    reader.read(files)
    if not reader.blocks:
        raise DataError(f"{files[0]}: there is no row in it", "Write it again.")
    try:
        table = pl.concat(reader.blocks, how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{files[0]}: column '{config.columns.timestamp}' holds times of several types",
            "Write all of them as numbers, or all as text.",
        ) from error
    if config.columns.row is not None:
        _refuse_repeats(table, files[0], config.columns.row)
    if config.columns.timestamp is not None and table[TARGET].count():
        table = _with_times(table, files[0], config.columns.timestamp)
    return Rows(files, table, reader.titles, reader.empty, reader.bare, reader.separator)


def files_of_rows(locations: Path | Sequence[Path], *, setting: str = "data.rows") -> list[Path]:
    """The files of rows, in order. Raises DataError unless all are there, and of one kind."""
    return record_files([locations] if isinstance(locations, Path) else locations, setting=setting)


def with_item_ids(
    parts: Mapping[str, pl.DataFrame],
    vocabulary: Vocabulary,
    titles: Mapping[int, str],
    config: DataConfig,
    *,
    warn: Callable[[str], None],
) -> tuple[dict[str, pl.DataFrame], pl.DataFrame]:
    """The samples with the ids of items and users, whole numbers where all are, and the items: item_id, title.

    Titles are of the items file, or else what the first row with that target is to write.
    """
    location = Path(config.rows[0] if isinstance(config.rows, list) else config.rows or "rows")
    texts = pl.Series(vocabulary.items.texts, dtype=pl.String)
    read = values.ids(Column(location, str(config.columns.target), texts, text=True))
    if config.items is None:
        kept = read.values
        names = pl.Series([titles.get(item) for item in range(len(kept))], dtype=pl.String)
        items = item_table(kept, names, warn=lambda _: None)
    else:
        table = read_table(config.items)
        table_ids = values.ids(table.column(config.columns.item, setting="data.columns.item"))
        kept, table_items = values.reconcile(read, table_ids)
        title = values.titles(table.column(config.columns.title, setting="data.columns.title"))
        items = item_table(table_items, title, warn=warn)
    numbers = pl.int_range(len(kept), dtype=pl.Int32, eager=True)
    mapped = [
        pl.col(HISTORY).list.eval(pl.element().replace_strict(numbers, kept)),
        pl.lit(kept).gather(pl.col(TARGET)).alias(TARGET),
    ]
    if vocabulary.users.texts:
        users = pl.Series(vocabulary.users.texts, dtype=pl.String)
        ids = values.ids(Column(location, str(config.columns.user), users, text=True)).values
        mapped.append(pl.lit(ids).gather(pl.col(USER)).alias(USER))
    return {name: part.with_columns(mapped) for name, part in parts.items()}, items


def _texts(config: DataConfig) -> dict[str, Any]:
    columns = config.columns
    return {
        "prompt": columns.prompt,
        "completion": columns.completion,
        "messages": columns.messages,
        "input_ids": columns.input_ids,
        "labels": columns.labels,
        "templates": config.template and (config.template.prompt, config.template.completion),
    }


def _content(text: Text) -> int:
    """A number that equal texts share."""
    return hash(tuple(text.values()) if COMPLETION in text else str(text))


def _roots(name: str) -> Iterator[str]:
    """The name, and that of the field within which it may be."""
    yield name
    yield name.partition(".")[0]


def _required(fields: Mapping[str, Any], name: str) -> Any:
    value = value_of(fields, name)
    if is_blank(value):
        raise RowFault(f"has no '{name}'", "Fill it in, or name the right field in data.columns.")
    return value


def _id(fields: Mapping[str, Any], name: str) -> str:
    return as_id(_required(fields, name), name)


def _refuse_repeats(table: pl.DataFrame, path: Path, name: str) -> None:
    repeated = table.filter(pl.col(ROW_ID).is_duplicated())
    if len(repeated):
        first = repeated.filter(pl.col(ROW_ID) == repeated[ROW_ID][0])[ROW]
        rows = " and ".join(f"{row - table[ROW][0] + 1:,}" for row in first[:2])
        raise DataError(
            f"{path}: '{name}' {repeated[ROW_ID][0]!r} is the id of rows {rows}; {repeated[ROW_ID].n_unique():,} ids"
            " repeat",
            "Give each row an id of its own, or set data.columns.row to null to have them numbered.",
        )


def _with_times(table: pl.DataFrame, path: Path, name: str) -> pl.DataFrame:
    about = table.filter(pl.col(TARGET).is_not_null())
    times = values.timestamps(Column(path, name, about[TIMESTAMP], text=False))
    return table.drop(TIMESTAMP).join(
        about.select(ROW, times.alias(TIMESTAMP)), on=ROW, how="left", maintain_order="left"
    )
