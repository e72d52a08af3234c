"""A first config for training rows of the user's own: their files, their layout, and which fields say what of whom."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dealrec.data.readers.layouts import Layout, RowFault, layout_of
from dealrec.data.readers.parts import is_table, shards_of, sibling_note
from dealrec.data.readers.records import ENDINGS, count_rows, ending, names_of, record_files, records
from dealrec.drafting.files import reachable
from dealrec.drafting.names import words
from dealrec.drafting.row_columns import Ask, Fields, Guessed
from dealrec.errors import DataError

LOOKED_AT = 500  # rows of a file
TEXTS = ("prompt", "completion", "messages", "input_ids", "labels")  # of data.columns, what is trained on
_PARTS = {
    "rows": ("train", "training"),
    "valid_rows": ("valid", "validation", "val", "dev"),
    "test_rows": ("test", "eval", "holdout"),
}
# Beside a text that is trained on.
_OF_TEXTS = frozenset({"text", "segments", "id", "uuid", "source", "metadata", "images", "videos"})
_KINDS = (
    "_sid",
    "_title",
    "_id",
)  # of what items are called by in CSV files (item_sid, history_item_sid), the best first


@dataclass(frozen=True)
class RowsDraft:
    """guesses: of settings, in the order of the config. files: of each part. looked_at: rows of the first.

    count: how many there are to select from, as far as `most`; those of no interaction are left out, by their share.
    """

    guesses: tuple[Guessed, ...]
    files: Mapping[str, list[Path]]
    layout: str
    looked_at: int
    count: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Head:
    """The first rows of a part and their layout."""

    rows: list[dict[str, Any]]
    layout: Layout


def rows_draft(paths: Sequence[Path], *, said: Mapping[str, Any], ask: Ask | None, most: int) -> RowsDraft | None:
    """Settings for the training rows in files or folders of parts; None: they hold no such rows.

    none, or a folder of files that are called train, valid or test: those. said: settings that are not guessed, by
    their keys. ask: called where a guess is ambiguous. most: rows that are counted.

    Raises DataError for a second file of another kind, and where `said` names a field that there is not; ConfigError
    for what the system does not let us look at.
    """
    if said.get("data.format", "rows") != "rows":
        return None
    with reachable("Check the path, and that you may read it."):
        files = _by_part(paths)
        head = _head(files["rows"], said) if "rows" in files else None
        if head is None:
            return None
        left_out = [part for part in files if part != "rows" and not _alike(head, _head(files[part], said))]
    notes = []
    for part in left_out:
        path = files.pop(part)[0]
        if path in paths:
            raise DataError(
                f"{path}: it holds no training rows such as those of {files['rows'][0].name}, {head.layout.name}",
                "Name those to aim at second; a file of titles is given by --set data.items=FILE.",
            )
        notes.append(f"{path.name} is left out: it holds no rows such as those of {files['rows'][0].name}")
    names = tuple(dict.fromkeys(head.layout.fields[:2]))
    guesses = [Guessed("data.format", "rows", f"the rows hold {head.layout.name}: {', '.join(names)}")]
    for part, found in files.items():
        guesses.append(Guessed(f"data.{part}", found if len(found) > 1 else found[0], _reason(part, found)))
    if head.layout.name == "template" and "data.template.prompt" not in said:
        history, item = names
        guesses += [
            Guessed("data.template.prompt", f"REPLACE THIS: {{{history}}}", "your trainer has it in its code"),
            Guessed("data.template.completion", f"{{{item}}}", "and so is what follows the item"),
        ]
        notes.append("data.template is a placeholder: put your trainer's prompt there, or losses are of another one")
    given = {key.removeprefix("data.columns."): said[key] for key in said if key.startswith("data.columns.")}
    # An Alpaca row may call the items so far what others call earlier turns.
    fields = Fields(files["rows"][0], head.rows, without=frozenset(head.layout.fields[:2]), given=given, ask=ask)
    columns = list(fields.guesses())
    guesses += columns
    keys = {guess.key for guess in columns} | said.keys()
    if "data.columns.target" not in keys:
        notes.append(
            "no fields of a history and a target of item ids were seen, so rows will be selected by signals of the LLM"
            " alone; name them in data.columns if there are any"
        )
    if "valid_rows" not in files and "data.valid_rows" not in said:
        by = "latest" if "data.columns.timestamp" in keys else "drawn"
        notes.append(f"no validation rows were named: data.valid_share of the rows, {by}, will be aimed at")
    notes += [
        note for found in files.values() if len(found) == 1 and found[0].is_file() and (note := sibling_note(found[0]))
    ]
    target = {guess.key: guess.value for guess in columns}.get("data.columns.target", given.get("target"))
    share = 1.0 if target is None else fields.share(target)
    count = sum(count_rows(path, most=most) for path in record_files(files["rows"], setting="data.rows"))
    return RowsDraft(
        tuple(guesses), files, head.layout.name, len(head.rows), round(share * min(most, count)), tuple(notes)
    )


def _by_part(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Which files are which part, by what they are called. Empty where there are none that may be rows."""
    place = paths[0] if paths else Path()
    if len(paths) > 1:
        found = _named(paths)
    elif place.is_dir():
        found = {"rows": [place]} if is_table(place, ENDINGS) else _within(place)
    else:
        found = _beside(place) if _is_data(place) else {}
    return {part: found[part] for part in _PARTS if part in found} if "rows" in found else {}


def _named(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """In whatever order where their names say so; others are the next of rows, validation and testing."""
    free = [part for part in _PARTS if part not in map(_part, paths)]
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(_part(path) or (free.pop(0) if free else "rows"), []).extend(shards_of(path))
    return found


def _beside(path: Path) -> dict[str, list[Path]]:
    """The rows, whatever they are called, and files of their kind beside them."""
    found = {"rows": shards_of(path)}
    for other in sorted(filter(_is_data, path.parent.iterdir())):
        if (part := _part(other)) and ending(other) == ending(path) and other not in found["rows"]:
            found.setdefault(part, shards_of(other))
    return found


def _within(folder: Path) -> dict[str, list[Path]]:
    """Files in a folder that hold nothing but parts; beside them may be what the items are called, as JSON."""
    files = sorted(filter(_is_data, folder.iterdir()))
    found: dict[str, list[Path]] = {"rows": files} if len(files) == 1 else {}
    for path in files if not found else ():
        if part := _part(path):
            found.setdefault(part, shards_of(path))
        elif path.suffix != ".json":
            return {}
    return found


def _is_data(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and path.name.lower().endswith(ENDINGS)


def _part(path: Path) -> str | None:
    """The setting of the part that a file is called like."""
    name = set(words(path.name.partition(".")[0]))
    return next((part for part, called in _PARTS.items() if not name.isdisjoint(called)), None)


def _reason(part: str, files: Sequence[Path]) -> str:
    if part != "rows":
        return "its name says so" if _part(files[0]) == part else "it was named after the rows"
    if len(files) > 1:
        return f"{len(files):,} files of one part"
    return "a folder of parts" if files[0].is_dir() else "has what a model is trained on"


def _head(locations: Sequence[Path], said: Mapping[str, Any]) -> _Head | None:
    """None of what cannot be read as rows, or holds nothing that a model could be trained on."""
    try:
        path = record_files(locations, setting="data.rows")[0]
        if (names := names_of(path)) is not None and _layout(
            names, said
        ) is None:  # before rows with wide columns are read
            return None
        rows = list(islice(records(path), LOOKED_AT))
    except DataError:
        return None
    layout = _layout(dict.fromkeys(name for row in rows for name in row), said)
    return _Head(rows, layout) if layout is not None and any(_is_readable(layout, row) for row in rows[:20]) else None


def _layout(names: Collection[str], said: Mapping[str, Any]) -> Layout | None:
    """As the settings say, or as the fields are called."""
    given = {name: said.get(f"data.columns.{name}") for name in TEXTS}
    templates = tuple(said[key] for key in ("data.template.prompt", "data.template.completion") if key in said)
    layout = layout_of(names, **given, templates=templates if len(templates) == 2 else None)
    if layout is not None and layout.name == "text" and not _OF_TEXTS.issuperset(names):
        return None  # a column of text may be anything, a review's for instance
    if layout is None:
        pairs = (name for kind in _KINDS for name in names if name.endswith(kind) and f"history_{name}" in names)
        if (item := next(pairs, None)) is not None:
            return layout_of(names, templates=(f"{{history_{item}}}", f"{{{item}}}"))
    return layout


def _is_readable(layout: Layout, row: Mapping[str, Any]) -> bool:
    try:
        layout.text(row)
    except (RowFault, TypeError, ValueError):
        return False
    return True


def _alike(head: _Head, other: _Head | None) -> bool:
    return other is not None and other.layout.fields == head.layout.fields
