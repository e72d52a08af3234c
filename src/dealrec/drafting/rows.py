"""A look at training rows of the user's own: their files, their layout, and which fields say what of whom."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from dealrec.data.readers.layouts import Layout, RowFault, layout_of
from dealrec.data.readers.parts import is_table, shards_of, sibling_note
from dealrec.data.readers.records import ENDINGS, count_rows, ending, names_of, record_files, records
from dealrec.drafting.looks import Choose, Guess, Look
from dealrec.drafting.names import words
from dealrec.drafting.row_columns import Fields
from dealrec.errors import DataError

LOOKED_AT = 500  # rows of a file
TEXTS = ("prompt", "completion", "messages", "input_ids", "labels")  # of data.columns, what is trained on
TEMPLATE = ("data.template.prompt", "data.template.completion")
_PARTS = {
    "rows": ("train", "training"),
    "valid_rows": ("valid", "validation", "val", "dev"),
    "test_rows": ("test", "eval", "holdout"),
}
# Beside a text that is trained on.
_OF_TEXTS = frozenset({"text", "segments", "id", "uuid", "source", "metadata", "images", "videos"})
_KINDS = ("_sid", "_title", "_id")  # of what items are called by in CSV files (history_item_sid), the best first
_SHOWN = ("data.rows", "data.valid_rows", "data.test_rows", "data.valid_share", "data.other_rows")


def look_at_rows(paths: Sequence[Path], said: Mapping[str, Any], choose: Choose | None, *, most: int) -> Look | None:
    """Settings for the training rows in files or folders of parts; None: they hold no such rows.

    paths: none, or a folder of files that are called train, valid or test: those. said: settings that are not guessed.
    most: rows that are counted; those of no interaction are left out of the count, by their share.

    Raises DataError for a second file of another kind, and where `said` names a field that there is not; OSError for
    what the system does not let us look at.
    """
    files = _by_part(paths) if said.get("data.format", "rows") == "rows" else {}
    head = _head(files["rows"], said) if "rows" in files else None
    if head is None:
        return None
    rows, layout = head
    first, notes = files["rows"][0], list[str]()
    for part, (path, *_) in list(files.items())[1:]:
        other = _head(files[part], said)
        if other is None or other[1].fields != layout.fields:
            if path in paths:
                raise DataError(
                    f"{path}: it holds no training rows such as those of {first.name}, {layout.name}",
                    "Name those to aim at second; a file of titles is given by --set data.items=FILE.",
                )
            notes.append(f"{path.name} is left out: it holds no rows such as those of {first.name}")
            del files[part]
    given = {key.removeprefix("data.columns."): value for key, value in said.items() if key.startswith("data.columns.")}
    # An Alpaca row may call the items so far what others call earlier turns.
    fields = Fields(first, rows, without=frozenset(layout.fields[:2]), given=given, choose=choose)
    guesses = [*_files(files, layout, said), *fields.guesses()]
    values = {guess.key: guess.value for guess in guesses} | dict(said)
    target = values.get("data.columns.target")
    count = sum(count_rows(path, most=most) for path in record_files(files["rows"], setting="data.rows"))
    samples = round((1.0 if target is None else fields.share(target)) * min(most, count))
    return Look(
        seen=[f"{first.name} ({len(rows):,} rows were looked at)"],
        guesses=guesses,
        shown=_SHOWN,
        samples=samples,
        of=f"{samples:,} rows" + " or more" * (samples >= most),
        figures={"layout": layout.name, "looked_at": len(rows)} | {part: list(map(str, files[part])) for part in files},
        notes=[*notes, *_notes(files, values, placeholder=values.keys() - said.keys() >= set(TEMPLATE))],
    )


def _files(files: Mapping[str, list[Path]], layout: Layout, said: Mapping[str, Any]) -> Iterator[Guess]:
    names = dict.fromkeys(layout.fields[:2])
    yield Guess("data.format", "rows", f"the rows hold {layout.name}: {', '.join(names)}")
    for part, paths in files.items():
        if part != "rows":
            reason = "its name says so" if _part(paths[0]) == part else "it was named after the rows"
        elif len(paths) > 1:
            reason = f"{len(paths):,} files of one part"
        else:
            reason = "a folder of parts" if paths[0].is_dir() else "has what a model is trained on"
        yield Guess(f"data.{part}", paths if len(paths) > 1 else paths[0], reason)
    if layout.name == "template" and TEMPLATE[0] not in said:
        history, item = names
        yield Guess(TEMPLATE[0], f"REPLACE THIS: {{{history}}}", "your trainer has it in its code")
        yield Guess(TEMPLATE[1], f"{{{item}}}", "and so is what follows the item")


def _notes(files: Mapping[str, list[Path]], values: Mapping[str, Any], *, placeholder: bool) -> Iterator[str]:
    if placeholder:
        yield "data.template is a placeholder: put your trainer's prompt there, or losses are of another one"
    if "data.columns.target" not in values:
        yield (
            "no fields of a history and a target of item ids were seen, so rows will be selected by signals of the LLM"
            " alone; name them in data.columns if there are any"
        )
    if "data.valid_rows" not in values:
        by = "latest" if "data.columns.timestamp" in values else "drawn"
        yield f"no validation rows were named: data.valid_share of the rows, {by}, will be aimed at"
    for paths in files.values():
        if len(paths) == 1 and paths[0].is_file() and (note := sibling_note(paths[0])):
            yield note


def _by_part(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Which files are which part, the rows first. Empty where there are none that may be rows.

    Several that were named are what their names say, in whatever order; others are the next of rows, validation and
    testing. One is the rows, whatever it is called, and files of its kind beside it may be the rest. A folder is a
    table, or holds nothing but parts; beside them may be what the items are called, as JSON.
    """
    place = paths[0] if paths else Path()
    files: dict[str, list[Path]] = {}
    if len(paths) > 1:
        free = [part for part in _PARTS if part not in map(_part, paths)]
        for path in paths:
            files.setdefault(_part(path) or (free.pop(0) if free else "rows"), []).extend(shards_of(path))
    elif is_table(place, ENDINGS):
        files = {"rows": [place]}
    elif place.is_dir():
        there = _data_in(place)
        if len(there) == 1:
            files = {"rows": there}
        elif all(_part(path) or path.suffix == ".json" for path in there):
            files = _called(there)
    elif place.is_file() and place in (beside := _data_in(place.parent)):
        rows = shards_of(place)
        files = _called([path for path in beside if ending(path) == ending(place) and path not in rows])
        files["rows"] = rows
    return {part: files[part] for part in _PARTS if part in files} if "rows" in files else {}


def _called(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """The first file of each part that any is called like, with its shards."""
    return {part: shards_of(path) for path in reversed(paths) if (part := _part(path))}


def _data_in(folder: Path) -> list[Path]:
    paths = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in paths if path.name.lower().endswith(ENDINGS))


def _part(path: Path) -> str | None:
    """The setting of the part that a file is called like."""
    name = set(words(path.name.partition(".")[0]))
    return next((part for part, called in _PARTS.items() if not name.isdisjoint(called)), None)


def _head(locations: Sequence[Path], said: Mapping[str, Any]) -> tuple[list[dict[str, Any]], Layout] | None:
    """The first rows and their layout; None of what cannot be read as rows, or that no model could be trained on."""
    try:
        path = record_files(locations, setting="data.rows")[0]
        names = names_of(path)
        if names is not None and _layout(names, said) is None:  # before rows with wide columns are read
            return None
        rows = list(islice(records(path), LOOKED_AT))
    except DataError:
        return None
    layout = _layout(dict.fromkeys(name for row in rows for name in row), said)
    return (rows, layout) if layout is not None and any(_is_readable(layout, row) for row in rows[:20]) else None


def _layout(names: Collection[str], said: Mapping[str, Any]) -> Layout | None:
    """As the settings say, or as the fields are called."""
    given = {name: said.get(f"data.columns.{name}") for name in TEXTS}
    templates = tuple(said[key] for key in TEMPLATE if key in said)
    layout = layout_of(names, **given, templates=templates if len(templates) == 2 else None)
    if layout is not None and layout.name == "text" and not _OF_TEXTS.issuperset(names):
        return None  # a column of text may be anything, a review's for instance
    pairs = (name for kind in _KINDS for name in names if name.endswith(kind) and f"history_{name}" in names)
    if layout is None and (item := next(pairs, None)) is not None:
        return layout_of(names, templates=(f"{{history_{item}}}", f"{{{item}}}"))
    return layout


def _is_readable(layout: Layout, row: Mapping[str, Any]) -> bool:
    try:
        layout.text(row)
    except (RowFault, TypeError, ValueError):
        return False
    return True
