"""Training rows of the user's own: what each is trained on, and which interaction it is of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from dealrec.columns import COMPLETION, HISTORY, LABELS, ROW, ROW_ID, TARGET, TIMESTAMP, USER
from dealrec.config import DataConfig
from dealrec.data import values
from dealrec.data.readers.faults import reading
from dealrec.data.readers.layouts import SCHEMA, Layout, RowFault, Text, absent, layout_of, learnt_text, parsed
from dealrec.data.readers.layouts import field as value_of
from dealrec.data.readers.records import names_of, place_of, record_files, records
from dealrec.data.readers.tables import Column, read_table
from dealrec.data.row_samples import CONTENT, INTERACTION
from dealrec.data.titles import item_table
from dealrec.data.vocabulary import Vocabulary, as_id, is_blank
from dealrec.errors import DataError, first_line

BLOCK = 10_000  # rows whose texts are in memory at a time
_NO_INTERACTION = (None,) * 5
SEPARATORS = ("|", ";", "\t", ",", " ")
TITLE_KEPT = 200  # characters of what is learnt that stand in for a title


@dataclass(frozen=True)
class Rows:
    """Rows of one part, in the order of the files.

    table: of those of an interaction: row (Int64, counted from `first` on), timestamp as the files give it, and
    user_id, history (list), target and interaction as numbers of the vocabulary. others: the numbers of those of none.
    titles: of targets by their numbers, from the rows. equal: rows that say what an earlier one says, of the same
    interaction. empty: completions without a letter. bare: rows of a target and an empty history, which are of no
    interaction. separator: of histories that are texts; whole: of these those without any.
    """

    files: tuple[Path, ...]
    table: pl.DataFrame
    others: pl.Series
    titles: Mapping[int, str]
    equal: int = 0
    empty: int = 0
    bare: int = 0
    whole: int = 0
    separator: str | None = None

    def __len__(self) -> int:
        return len(self.table) + len(self.others)


@dataclass
class _Reader:
    """Reads rows and has their texts written, a block at a time; of one without an interaction two hashes are kept."""

    config: DataConfig
    write: Callable[[pl.DataFrame], None]
    first: int
    vocabulary: Vocabulary
    starts: dict[Path, int] = field(default_factory=dict)  # the number of each file's first row
    titles: dict[int, str] = field(default_factory=dict)
    separator: str | None = None
    empty: int = 0
    bare: int = 0
    whole: int = 0
    layout: Layout | None = None
    table: list[pl.DataFrame] = field(default_factory=list)
    others: list[pl.Series] = field(default_factory=list)
    ids: list[pl.Series] = field(default_factory=list)
    contents: list[pl.Series] = field(default_factory=list)

    def read(self, files: Sequence[Path]) -> None:
        names: set[str] | None = None
        number = self.first
        self.separator = self.config.columns.history_separator
        for path in files:
            here, block, texts = set(names_of(path) or ()), [], []
            self.starts[path] = number
            for row, fields in enumerate(records(path, self._wanted), start=1):
                here |= fields.keys()
                try:
                    text = self._layout(path, fields).text(fields)
                    interaction = self._interaction(fields, text)
                    row_id = str(number - self.first + 1)
                    if self.config.columns.row is not None:
                        row_id = as_id(_required(fields, self.config.columns.row), self.config.columns.row)
                except RowFault as fault:
                    raise DataError(f"{path}: {place_of(path, row)} {fault.cause}", fault.remedy) from None
                self.empty += LABELS not in text and not learnt_text(text)
                content = tuple(text.values()) if COMPLETION in text else str(text)
                block.append((number, *(interaction or _NO_INTERACTION), hash((repr(interaction), content))))
                texts.append({ROW: number, ROW_ID: row_id, **text})
                number += 1
                if len(block) == BLOCK:
                    self._flush(path, block, texts)
                    block, texts = [], []
            self._flush(path, block, texts)
            if names and here and here != names:
                odd = sorted(here ^ names)[0]
                raise DataError(
                    f"{path}: its fields are not those of {files[0].name}: '{odd}' is in one of the two alone",
                    "Write all parts with the same fields; name rows of another kind in files of their own.",
                )
            names = here or names

    def place(self, number: int) -> str:
        """In words which row of which file it is."""
        path = max((path for path in self.starts if self.starts[path] <= number), key=self.starts.__getitem__)
        place = place_of(path, number - self.starts[path] + 1)
        return f"{place} of {path.name}" if len(self.starts) > 1 else place

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

    def _interaction(self, fields: Mapping[str, Any], text: Text) -> tuple[Any, ...] | None:
        """user_id, history, target, timestamp, interaction; None: of no interaction."""
        columns, items = self.config.columns, list[int]()
        if columns.target is None or columns.history is None:
            digest = hashlib.blake2b(learnt_text(text).encode(errors="replace"), digest_size=8).hexdigest()
            target = self.vocabulary.items.of(digest, "completion")
        else:
            history, aim = value_of(fields, columns.history), value_of(fields, columns.target)
            if is_blank(aim) and is_blank(history):
                return None
            items = self._history(history, fields, columns.history)
            target = self.vocabulary.items.of(_required(fields, columns.target), columns.target)
            if not items:
                self.bare += 1
                return None
        if self.config.items is None and LABELS not in text and target not in self.titles:
            self.titles[target] = learnt_text(text)[:TITLE_KEPT]
        user, interaction = (
            None if name is None else codes.of(_required(fields, name), name)
            for name, codes in (
                (columns.user, self.vocabulary.users),
                (columns.interaction, self.vocabulary.interactions),
            )
        )
        time = None if columns.timestamp is None else _required(fields, columns.timestamp)
        return user, items, target, time, interaction

    def _history(self, value: Any, fields: Mapping[str, Any], name: str) -> list[int]:
        if isinstance(value, str):
            value = [] if is_blank(value) else self._items_of(value.strip())
        if value is None:
            raise absent(fields, name, "history in ")
        if not isinstance(value, list | tuple):
            raise RowFault(f"has no history in '{name}'", "Fill it in, or name the right field in data.columns.")
        return [self.vocabulary.items.of(item, name) for item in value]

    def _items_of(self, text: str) -> Any:
        if text[:1] in ("[", "(") and (items := parsed(text)) is not None:
            return items
        if self.separator is None:
            self.separator = next((mark for mark in SEPARATORS if mark in text), None)
        items = text.split(self.separator) if self.separator else [text]
        self.whole += len(items) == 1
        return [item.strip() for item in items if item.strip()]

    def _flush(self, path: Path, block: list[tuple[Any, ...]], texts: list[dict[str, Any]]) -> None:
        if not block:
            return
        names = (ROW, USER, HISTORY, TARGET, TIMESTAMP, INTERACTION, CONTENT)
        columns = dict(zip(names, map(list, zip(*block, strict=True)), strict=True))
        times = columns.pop(TIMESTAMP)
        schema = dict.fromkeys(columns, pl.Int32()) | {
            ROW: pl.Int64(),
            HISTORY: pl.List(pl.Int32),
            CONTENT: pl.Int64(),
        }
        try:
            series = pl.Series(TIMESTAMP, times, strict=not any(isinstance(time, float) for time in times))
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
            raise _times_of_several_types(path, self.config) from error
        table = pl.DataFrame(columns, schema=schema).with_columns(series)
        about = pl.col(TARGET).is_not_null()
        self.contents.append(table[CONTENT])
        self.others.append(table.filter(~about)[ROW])
        self.table.append(table.filter(about).drop(CONTENT))
        block_texts = _table(path, texts)
        self.ids.append(block_texts[ROW_ID].hash())
        self.write(block_texts)


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
    if not reader.table:
        raise DataError(f"{files[0]}: there is no row in it", "Write it again.")
    if config.columns.row is not None:
        _refuse_repeats(reader, config.columns.row)
    try:
        table = pl.concat(reader.table, how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        raise _times_of_several_types(files[0], config) from error
    if config.columns.timestamp is not None and len(table):
        numbers = table[ROW]
        column = Column(files[0], config.columns.timestamp, table[TIMESTAMP], text=False)
        column = replace(column, place=lambda row: reader.place(int(numbers[row])))
        table = table.with_columns(values.timestamps(column).alias(TIMESTAMP))
    contents = pl.concat(reader.contents)
    return Rows(
        files,
        table,
        pl.concat(reader.others),
        reader.titles,
        equal=len(contents) - contents.n_unique(),
        empty=reader.empty,
        bare=reader.bare,
        whole=reader.whole,
        separator=reader.separator,
    )


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
        with reading(config.items):
            table_ids = values.ids(table.column(config.columns.item, setting="data.columns.item"))
            title = values.titles(table.column(config.columns.title, setting="data.columns.title"))
        kept, table_items = values.reconcile(read, table_ids)
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


def _table(path: Path, texts: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Texts of rows as a table. Raises DataError for what none can hold: half a character, a number beyond 64 bits."""
    try:
        return pl.DataFrame(texts, schema={ROW: pl.Int64, ROW_ID: pl.String, **SCHEMA})
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        if len(texts) > 1:
            for text in texts:
                _table(path, [text])
        what = f"the row of id {texts[0][ROW_ID]!r:.40} cannot be held: {first_line(error)}"
        raise DataError(f"{path}: {what}", "Mend it, or leave it out.") from error


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


def _roots(name: str) -> Iterator[str]:
    """The name, and that of the field within which it may be."""
    yield from (name, name.partition(".")[0])


def _required(fields: Mapping[str, Any], name: str) -> Any:
    value = value_of(fields, name)
    if is_blank(value):
        raise absent(fields, name)
    return value


def _refuse_repeats(reader: _Reader, name: str) -> None:
    """Raise DataError for rows that share an id. Ids are told by their hashes, and read again where two are alike."""
    hashes = pl.DataFrame({ROW_ID: pl.concat(reader.ids)}).with_row_index(ROW, offset=reader.first)
    alike = hashes.filter(pl.col(ROW_ID).is_duplicated())
    if not len(alike):
        return
    first, second = alike.filter(pl.col(ROW_ID) == alike[ROW_ID][0])[ROW][:2]
    path, start = next((path, start) for path, start in reversed(reader.starts.items()) if start <= first)
    row = next(islice(records(path), first - start, None))
    raise DataError(
        f"{path}: '{name}' {str(value_of(row, name))!r} is the id of {reader.place(first)} and of"
        f" {reader.place(second)}; {alike[ROW_ID].n_unique():,} ids repeat",
        "Give each row an id of its own, or set data.columns.row to null to have them numbered.",
    )


def _times_of_several_types(path: Path, config: DataConfig) -> DataError:
    fault = f"{path}: column '{config.columns.timestamp}' holds times of several types"
    return DataError(fault, "Write all of them as numbers, or all as text.")
