"""A first config for training rows of the user's own: their layout, and which fields say what a row is about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dealrec.data.readers.layouts import Layout, field, layout_of, parsed
from dealrec.data.readers.records import ENDINGS, record_files, records
from dealrec.drafting.names import name_score, words
from dealrec.errors import DataError

LOOKED_AT = 500  # rows of a file
PARTS = {"valid_rows": ("valid", "validation", "val", "dev"), "test_rows": ("test", "eval", "holdout")}
SEQUENCE_IDS = ("history_item_sid", "item_sid")  # MiniOneRec's CSV, whose prompts are written by its trainer
_HISTORIES = {"history", "histories", "hist", "sequence", "seq", "past", "context", "previous", "clicked", "bought"}
_TARGETS = {"target", "next", "label", "answer", "truth", "positive"}
_ROWS = {"id", "uuid", "row_id", "rowid", "row", "sample_id", "example_id", "uid", "index"}
_DEPTH = 3


@dataclass(frozen=True)
class Guessed:
    """A setting of `data`, its value, and why."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class RowsDraft:
    """guesses: of settings, in the order of the config. rows: of the first file, as far as looked at."""

    guesses: tuple[Guessed, ...]
    files: Mapping[str, Path]
    layout: str
    looked_at: int
    notes: tuple[str, ...]


def rows_draft(paths: Sequence[Path]) -> RowsDraft | None:
    """Settings for the training rows in the files, a file or folder a part; None: they hold no such rows."""
    files = _by_part(paths)
    heads = {part: _head(path) for part, path in files.items()}
    head = heads.get("rows")
    layout = _layout(head) if head else None
    if not head or layout is None:
        return None
    guesses = [
        Guessed("data.format", "rows", f"the rows hold {layout.name}: {', '.join(dict.fromkeys(layout.fields[:2]))}"),
        *(Guessed(f"data.{part}", path, _reason(part, path, files["rows"])) for part, path in files.items()),
    ]
    notes = []
    if layout.name == "template":
        guesses += [
            Guessed("data.template.prompt", "REPLACE THIS: {history_item_sid}", "your trainer has it in its code"),
            Guessed("data.template.completion", "{item_sid}", "and so is what follows the item"),
        ]
        notes.append("data.template is a placeholder: put your trainer's prompt there, or losses are of another one")
    columns = dict(_columns(head, layout))
    guesses += columns.values()
    if "data.columns.target" not in columns:
        notes.append(
            "no fields of a history and a target of item ids were seen, so rows will be selected by signals of the LLM"
            " alone; name them in data.columns if there are any"
        )
    if "valid_rows" not in files:
        by = "latest" if "data.columns.timestamp" in columns else "drawn"
        notes.append(f"no validation rows were named: data.valid_share of the rows, {by}, will be aimed at")
    return RowsDraft(tuple(guesses), files, layout.name, len(head), tuple(notes))


def _by_part(paths: Sequence[Path]) -> dict[str, Path]:
    """Which file is which part, by the names: of those given, or beside a single file."""
    given = [path for path in paths if path.is_dir() or path.name.lower().endswith(ENDINGS)]
    if len(given) == 1 and given[0].is_file():
        suffix = "".join(given[0].suffixes)
        given += sorted(
            p for p in given[0].parent.iterdir() if p.is_file() and p.name.endswith(suffix) and p != given[0]
        )
    found: dict[str, Path] = {}
    for path in given:
        name = set(words(path.name.partition(".")[0]))
        part = next((part for part, names in PARTS.items() if name & set(names)), "rows" if path in paths else "")
        if part:
            found.setdefault(part, path)
    return {part: found[part] for part in ("rows", *PARTS) if part in found}


def _head(path: Path) -> list[dict[str, Any]] | None:
    """The first rows; None of what cannot be read as such."""
    try:
        return list(islice(records(record_files([path], setting="data.rows")[0]), LOOKED_AT)) or None
    except DataError:
        return None


def _layout(head: Sequence[Mapping[str, Any]]) -> Layout | None:
    names = {name for row in head for name in row}
    if set(SEQUENCE_IDS) <= names:
        return layout_of(names, templates=("{history_item_sid}", "{item_sid}"))
    layout = layout_of(names)
    if layout is None or layout.name == "text":  # a column of text may be anything, a review's for instance
        return layout if names <= {"text", "segments", "id", "uuid", "source", "metadata", "images", "videos"} else None
    try:
        for row in head[:20]:
            layout.text(row)
    except Exception:
        return None
    return layout


def _reason(part: str, path: Path, rows: Path) -> str:
    if part == "rows":
        return "a folder of parts" if path.is_dir() else "has what a model is trained on"
    return f"its name says so, and it is beside {rows.name}"


def _columns(head: Sequence[Mapping[str, Any]], layout: Layout) -> Iterator[tuple[str, Guessed]]:
    """Settings of data.columns, by their keys."""
    taken = set(layout.fields[:2])  # an Alpaca row may call the items so far what others call earlier turns
    fields = {name: [field(row, name) for row in head] for name in _names(head) if name.partition(".")[0] not in taken}
    fields |= {name: [field(row, name) for row in head] for name in _names(head) if "." in name}
    scalars = {name: values for name, values in fields.items() if all(_is_scalar(value) for value in values)}

    def guess(role: str, name: str, reason: str) -> tuple[str, Guessed]:
        key = f"data.columns.{role}"
        return key, Guessed(key, name, reason)

    for name, values in scalars.items():
        if (
            words(name.rpartition(".")[2])
            and name.lower() in _ROWS
            and len(set(values)) == len(values)
            and None not in values
        ):
            yield guess("row", name, f"{len(values):,} rows, as many values")
            scalars = {other: column for other, column in scalars.items() if other != name}
            break
    pair = _history_and_target(fields, scalars)
    if pair is None:
        return
    history, target, reason = pair
    rest = {name: values for name, values in scalars.items() if name not in pair}
    for role in ("user", "timestamp"):
        scored = [(name_score(role, name.rpartition(".")[2]), name) for name in rest]
        score, name = max(scored, default=(0.0, ""))
        present = [value for value in rest.get(name, []) if value is not None]
        if score >= 0.5 and len(present) >= sum(value is not None for value in fields[target]):
            yield guess(role, name, f"{len(set(present)):,} distinct values, by its name")
    yield guess("history", history, "lists of ids, by its name")
    yield guess("target", target, reason)


def _history_and_target(
    fields: Mapping[str, Sequence[Any]], scalars: Mapping[str, Sequence[Any]]
) -> tuple[str, str, str] | None:
    """The two fields and why; the history's items have to be what the target is one of."""
    best: tuple[float, str, str, str] | None = None
    for history, cells in fields.items():
        named = bool(_HISTORIES & set(words(history.rpartition(".")[2])))
        lists = [_items(cell) for cell in cells]
        if not named or sum(bool(items) for items in lists) < len(lists) / 4:
            continue
        seen = {str(item) for items in lists for item in items or ()}
        for target, values in scalars.items():
            given = [str(value) for value in values if value is not None]
            if target == history or not given:
                continue
            known = sum(value in seen for value in given) / len(given)
            leaf = set(words(target.rpartition(".")[2]))
            called = bool(_TARGETS & leaf) or name_score("item", target.rpartition(".")[2]) >= 0.5
            ids = 0.1 * (target.endswith("id") and history.endswith("id"))  # rather than their titles or codes
            score = known + 0.5 * called + ids
            if called and known > 0 and (best is None or score > best[0]):
                best = score, history, target, f"{known:.0%} of its values stand in some {history} too"
    return best[1:] if best else None


def _names(head: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of all fields, of those within others with dots."""
    found: dict[str, None] = {}

    def walk(value: Any, prefix: str, depth: int) -> None:
        inner = parsed(value) if isinstance(value, str) and value[:1] == "{" else value
        if isinstance(inner, Mapping) and depth < _DEPTH:
            for name, below in inner.items():
                walk(below, f"{prefix}.{name}" if prefix else str(name), depth + 1)
        elif prefix:
            found[prefix] = None

    for row in head[:50]:
        walk(row, "", 0)
    return list(found)


def _items(cell: Any) -> list[Any] | None:
    """The ids in a cell; None where it holds no list of such."""
    if isinstance(cell, str):
        cell = parsed(cell) if cell[:1] in ("[", "(") else _split(cell)
    return list(cell) if isinstance(cell, list | tuple) and all(_is_scalar(item) for item in cell) else None


def _split(cell: str) -> list[str]:
    from dealrec.data.rows import SEPARATORS

    mark = next((mark for mark in SEPARATORS if mark in cell), None)
    return [part.strip() for part in cell.split(mark)] if mark else [cell]


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)
