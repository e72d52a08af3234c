"""A look at interactions and items: their files, columns and split."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dealrec.config import DataConfig
from dealrec.config.files import checked, nested
from dealrec.data import values
from dealrec.drafting.files import files
from dealrec.drafting.looks import Choose, Guess, Look
from dealrec.drafting.names import ROLES, name_score
from dealrec.drafting.preview import Preview
from dealrec.drafting.roles import Roles, guess, separator_of
from dealrec.drafting.splits import SplitChoice, choose_split
from dealrec.errors import ConfigError, DataError

_SHOWN = (
    *("data.columns", "data.split", "data.min_rating", "data.k_core", "data.samples_per_user", "data.max_history"),
    *("llm.prompt.max_items", "finetune.patience"),
)
_SHARES = ("data.valid_share", "data.test_share")  # of a split by time


def look_at_interactions(paths: Sequence[Path], said: Mapping[str, Any], choose: Choose | None) -> Look:
    """paths: of one or two files, or of a folder; none: the working directory. said: settings that are not guessed."""
    if len(paths) > 2:
        cause = f"{paths[0].name} holds no training rows, of which three parts can be named"
        raise ConfigError(cause, "Name a file of interactions and one of items, or rows.")
    for key in said.keys() & {"data.interactions", "data.items", "data.rows"}:
        cause = f"{key} is set, but init looks at the files that it writes down"
        raise ConfigError(cause, "Name them so: dealrec init INTERACTIONS ITEMS, or dealrec init ROWS")
    given = {role: said[key] for role in ROLES if (key := f"data.columns.{role}") in said}
    given = {role: None if name is None else str(name) for role, name in given.items()}
    previews, left_out = files(paths)
    try:
        roles = guess(previews, {file for file in previews if file.path in paths}, given, choose)
    except DataError as error:  # what was left out may be the cause
        raise DataError("; ".join([error.cause, *(note.rstrip(".") for note in left_out)]), error.remedy) from None
    guesses = [*_files(roles), *_columns(roles)]
    data = checked({"data": nested({each.key: each.value for each in guesses} | dict(said))["data"]}).data
    choice = choose_split(roles, data, said="data.split" in said)
    users = roles.chosen["user"].profile.distinct
    samples = choice.samples["train"] if choice.samples else users
    return Look(
        seen=[f"{table.name} ({table.seen})" for table in (roles.interactions, roles.items)],
        guesses=[*guesses, *_split(choice)],
        shown=[*_SHOWN, *(_SHARES if choice.split == "time" else ())],
        samples=samples,
        of=f"{samples:,} training samples" if choice.samples else f"{users:,} users or more",
        figures=_figures(roles, choice),
        notes=[
            *left_out,
            *_not_used(previews, roles),
            *_warnings(roles, data, choice),
        ],
    )


def _files(roles: Roles) -> Iterator[Guess]:
    log, items = roles.interactions, roles.items
    endings = {"table": "as the names of the files end", "recbole": "the files end in .inter and .item"}
    yield Guess("data.format", log.format, endings.get(log.format, "a folder of sequential_*.txt"))
    yield Guess("data.interactions", log.path, f"has users; {log.seen}")
    titled = "the same file, as it has titles" if log is items else f"has titles; {items.seen}"
    yield Guess("data.items", items.path, titled)


def _columns(roles: Roles) -> Iterator[Guess]:
    for role in ROLES:
        key = f"data.columns.{role}"
        if (option := roles.chosen.get(role)) is not None:
            # The release has no names of its own.
            yield Guess(key, roles.listed.name if role == "item" else option.profile.name, option.reason)
            if role == "category" and (mark := separator_of(option.profile)):
                yield Guess("data.columns.category_separator", mark, "stands between several in one text")
        elif role == "timestamp" and roles.interactions.format != "dealrec":
            yield Guess(key, None, "no column can be read as a time")


def _split(choice: SplitChoice) -> Iterator[Guess]:
    yield Guess("data.split", choice.split, choice.reason)
    if choice.samples and not choice.samples["valid"]:
        none = "the split leaves no samples for validation"
        yield Guess("select.method", "dealrec", f"{none}, which loss drops aim at")
        yield Guess("influence.risk", "train", none)
        yield Guess("pool.method", "random", none)


def _figures(roles: Roles, choice: SplitChoice) -> dict[str, Any]:
    """Figures; of a sample they are lower bounds, and `sampled` says what was read."""
    moments = roles.chosen["timestamp"].profile.moments if "timestamp" in roles.chosen else None
    first, last = (moment.isoformat() for moment in moments) if moments else (None, None)
    return {
        "interactions": roles.interactions.rows,
        "users": roles.chosen["user"].profile.distinct,
        "items": roles.chosen["item"].profile.distinct,
        "listed_items": roles.items.rows,
        "first": first,
        "last": last,
        "samples": choice.samples or None,
        "sampled": {table.name: table.seen for table in (roles.interactions, roles.items) if not table.whole},
    }


def _not_used(previews: Sequence[Preview], roles: Roles) -> Iterator[str]:
    """On the files that have the columns of one that was chosen."""
    log, items = roles.interactions, roles.items
    rest = [file for file in previews if file not in (log, items)]
    of_items, of_log = {roles.listed.name}, set[str]()
    for role, option in roles.chosen.items():
        (of_items if role in ("title", "category") else of_log).add(option.profile.name)
    for used, needed in ((log, of_log), (items, of_items)):
        if more := [file.name for file in rest if needed <= file.columns.keys()]:
            yield (
                f"not used: {', '.join(more)}, with the same columns as {used.name}: if they belong together, put all"
                " into one file, or alone into a folder, by names that differ in numbers alone, and name that"
            )


def _warnings(roles: Roles, data: DataConfig, choice: SplitChoice) -> Iterator[str]:
    """On the values and the split."""
    log = roles.interactions
    yield from (*log.table.warnings, *roles.items.table.warnings)
    if data.columns.timestamp is None and log.format != "dealrec":
        yield "no column is used as time: the order of the rows stands for it"
        for profile in log.columns.values():
            try:
                if name_score("timestamp", profile.name) >= 0.5:
                    values.timestamps(profile.column)
            except DataError as error:
                reason = error.cause.partition(f"column '{profile.name}' ")[2]
                yield f"'{profile.name}' is called like a time and is not used, for it {reason}. {error.remedy}"
    if choice.fault is not None:
        yield f"`dealrec validate` will refuse this: {choice.fault}"
    if choice.split == "leave-last-out" and choice.reason:
        yield f"split leave-last-out, as {choice.reason}; the future then leaks into training"
    if choice.samples is not None and not choice.samples.get("train"):
        yield "there are no training samples, or a part is left empty: `dealrec validate` will say more"
