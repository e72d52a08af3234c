"""A first config for the user's files: settings from a look at them, each with the reason in a comment."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dealrec.config.files import checked, commented, overridden, printable, section_of
from dealrec.config.recommenders import RECOMMENDERS
from dealrec.drafting.files import files, reachable
from dealrec.drafting.guesses import Choose, guess
from dealrec.drafting.names import ROLES
from dealrec.drafting.notes import llm_notes, notes
from dealrec.drafting.options import Roles, separator_of
from dealrec.drafting.rows import RowsDraft, rows_draft
from dealrec.drafting.splits import SplitChoice, choose_split
from dealrec.errors import ConfigError, DataError
from dealrec.recommenders.files import check_directory

MANY = 10_240  # training samples from which on the paper's budget is a small part of them
BUDGET, POOL = 1024, 4096

_SHOWN = (
    *("seed", "data.format", "data.interactions", "data.items", "data.columns", "data.split"),
    *("data.min_rating", "data.k_core", "data.samples_per_user", "data.max_history", "llm.model"),
    *("llm.prompt.max_items", "pool.size"),
    *("select.method", "select.budget", "finetune.epochs", "finetune.learning_rate", "finetune.batch_size"),
    *("finetune.micro_batch_size", "finetune.patience"),
)


_SHOWN_OF_ROWS = (
    *("seed", "data.format", "data.rows", "data.valid_rows", "data.test_rows", "data.valid_share", "data.other_rows"),
    *("llm.model", "pool.size", "select.method", "select.budget", "finetune.epochs", "finetune.learning_rate"),
    *("finetune.batch_size", "finetune.micro_batch_size"),
)


@dataclass(frozen=True)
class Guess:
    """A setting and why; None: it was given."""

    key: str
    value: Any
    reason: str | None


@dataclass(frozen=True)
class Draft:
    """The text of a config; guesses: what was chosen and why; figures: of the data; notes: for the user."""

    text: str
    guesses: tuple[Guess, ...]
    figures: Mapping[str, Any]
    notes: tuple[str, ...]


def draft(
    paths: Sequence[Path],
    *,
    folder: Path,
    llm: str | None = None,
    overrides: Sequence[str] = (),
    choose: Choose | None = None,
) -> Draft:
    """Settings for one or two files in either order, a folder of the DEALRec release, or what there is in a folder;
    or for training rows of the user's own, with those of validation and testing that are named or called so.

    paths: none means the working directory. folder: of the config; its paths are relative to it where the two have
    more than the root in common. llm: a directory or a model id. overrides: `key=value`, which are not guessed.
    choose: asked where a guess is ambiguous. Raises DataError for files that cannot be read and where a column that
    must be there is not found; ConfigError for what was given wrongly.
    """
    said = {key: Guess(key, value, None) for key, value in _leaves(overridden({}, overrides))}
    if llm is not None:
        said.setdefault("llm.model", Guess("llm.model", _model(llm, folder), None))
    values = {key: setting.value for key, setting in said.items()}
    with reachable("Check the path, and that you may read it."):
        of_rows = rows_draft(paths, said=values, ask=choose, most=MANY)
    if of_rows is not None:
        return _draft_of_rows(of_rows, said, folder)
    if len(paths) > 2:
        cause = f"{paths[0].name} holds no training rows, of which three parts can be named"
        raise ConfigError(cause, "Name a file of interactions and one of items, or rows.")
    for key in said.keys() & {"data.interactions", "data.items", "data.rows"}:
        cause = f"{key} is set, but init looks at the files that it writes down"
        raise ConfigError(cause, "Name them so: dealrec init INTERACTIONS ITEMS, or dealrec init ROWS")
    given = {role: said[key].value for role in ROLES if (key := f"data.columns.{role}") in said}
    given = {role: None if name is None else str(name) for role, name in given.items()}
    seen = files(paths)
    try:
        roles = guess(seen, given, choose)
    except DataError as error:  # what was left out may be the cause
        raise DataError("; ".join([error.cause, *(note.rstrip(".") for note in seen.notes)]), error.remedy) from None
    guesses = {setting.key: setting for setting in (*_files(roles, folder), *_columns(roles))} | said
    choice = choose_split(roles, checked({"data": _nested(guesses)["data"]}).data, said="data.split" in said)
    guesses |= {setting.key: setting for setting in _sizes(roles, choice)} | said
    config = checked(_nested(guesses))
    comments = {key: f"guessed: {setting.reason}" for key, setting in guesses.items() if setting.reason is not None}
    # A solver's key goes with its kind, so the whole section is shown.
    shown = {*_SHOWN, *comments, *(key.partition(".solver.")[0] + ".solver" * (".solver." in key) for key in said)}
    shown |= {"data.valid_share", "data.test_share"} if config.data.split == "time" else set()
    text = _head(roles) + commented(config, keys=shown, notes=comments)
    named = RECOMMENDERS[config.recommender].pretrained in said
    remarks = dict.fromkeys(notes(seen, roles, choice, config, llm=named))
    return Draft(text, tuple(guesses.values()), _figures(roles, choice), tuple(remarks))


def _draft_of_rows(of_rows: RowsDraft, said: Mapping[str, Guess], folder: Path) -> Draft:
    """The same for training rows of the user's own."""
    guesses = {each.key: Guess(each.key, _located(each.value, folder), each.reason) for each in of_rows.guesses}
    at_least = " or more" if of_rows.count >= MANY else ""
    guesses |= {each.key: each for each in _budget(of_rows.count, f"{of_rows.count:,} rows{at_least}")}
    guesses |= said
    config = checked(_nested(guesses))
    comments = {key: f"guessed: {setting.reason}" for key, setting in guesses.items() if setting.reason is not None}
    shown = {*comments, *said, *_SHOWN_OF_ROWS}
    rows = of_rows.files["rows"][0]
    head = _HEAD.format(printable(f"{rows.name} ({of_rows.looked_at:,} rows were looked at)"))
    figures = {"layout": of_rows.layout, "looked_at": of_rows.looked_at}
    figures |= {part: [str(path) for path in paths] for part, paths in of_rows.files.items()}
    named = RECOMMENDERS[config.recommender].pretrained in said
    remarks = [*of_rows.notes, *llm_notes(config, named=named)]
    return Draft(head + commented(config, keys=shown, notes=comments), tuple(guesses.values()), figures, tuple(remarks))


def refuse_to_replace(out: Path) -> None:
    """Raise ConfigError if there is a config already: asked before anything is looked at."""
    with reachable("Choose another place: --out."):
        if out.exists():
            raise ConfigError(f"{out} is there already", "Give --force to replace it, or another name: --out FILE")


def write(drafted: Draft, out: Path, *, force: bool) -> None:
    """Write the config; over one that appeared meanwhile only with `force`. Raises ConfigError if it cannot."""
    staging = out.with_name(out.name + ".tmp")
    if not force:
        refuse_to_replace(out)
    try:
        staging.write_text(drafted.text, encoding="utf-8")
        staging.rename(out)
    except OSError as error:
        with suppress(OSError):
            staging.unlink(missing_ok=True)
        raise ConfigError(f"Cannot write {out} ({error.strerror})", "Choose another place: --out.") from None


def _files(roles: Roles, folder: Path) -> list[Guess]:
    log, items = roles.interactions, roles.items
    endings = {"table": "as the names of the files end", "recbole": "the files end in .inter and .item"}
    titled = "the same file, as it has titles" if log is items else f"has titles; {items.seen}"
    return [
        Guess("data.format", log.format, endings.get(log.format, "a folder of sequential_*.txt")),
        Guess("data.interactions", _relative(log.path, folder), f"has users; {log.seen}"),
        Guess("data.items", _relative(items.path, folder), titled),
    ]


def _columns(roles: Roles) -> Iterator[Guess]:
    for role in ROLES:
        key = f"data.columns.{role}"
        if (option := roles.chosen.get(role)) is not None:
            column = option.profile
            missing = f"; {column.missing:,} rows have none" if column.missing else ""
            name = roles.listed.name if role == "item" else column.name  # the release has no names of its own
            yield Guess(key, name, f"{column.distinct:,} distinct values, {option.reason}{missing}")
            if role == "category" and (mark := separator_of(column)):
                yield Guess("data.columns.category_separator", mark, "stands between several in one text")
        elif role == "timestamp" and roles.interactions.format != "dealrec":
            yield Guess(key, None, "no column can be read as a time")


def _sizes(roles: Roles, choice: SplitChoice) -> Iterator[Guess]:
    yield Guess("data.split", choice.split, choice.reason)
    if choice.samples and not choice.samples["valid"]:
        none = "the split leaves no samples for validation"
        yield Guess("select.method", "dealrec", f"{none}, which loss drops aim at")
        yield Guess("influence.risk", "train", none)
        yield Guess("pool.method", "random", none)
    samples = choice.samples["train"] if choice.samples else roles.chosen["user"].profile.distinct
    yield from _budget(samples, f"{samples:,} training samples" if choice.samples else f"{samples:,} users or more")


def _budget(samples: int, of: str) -> Iterator[Guess]:
    """A pool and a budget for so many samples; of: these, in words."""
    if samples >= MANY:
        yield Guess("pool.size", POOL, "4 times the budget, a usual pool")
        yield Guess("select.budget", BUDGET, f"as in the paper; {BUDGET / samples:.1%} of {of}")
    else:
        yield Guess("pool.size", 0.4, f"4 times the budget; of {of}")
        yield Guess("select.budget", 0.1, f"of {of}; the share of the paper, 2 %, would be few")


def _model(llm: str, folder: Path) -> str:
    path = Path(os.path.expanduser(llm))  # noqa: PTH111 - leaves as it is what merely begins with ~
    with reachable("Check --llm."):
        if not (path.is_dir() or llm.startswith((".", "/", "~"))):
            return llm
        if not (path / "config.json").is_file():  # whether the rest is whole, `validate` says
            check_directory(path, setting="--llm")
    relative = _relative(path, folder)
    return relative if relative.startswith((".", "/")) else f"./{relative}"


def _located(value: Any, folder: Path) -> Any:
    """A setting as it is written; paths from the config's folder."""
    if isinstance(value, list):
        return [_located(each, folder) for each in value]
    return _relative(value, folder) if isinstance(value, Path) else value


def _relative(path: Path, folder: Path) -> str:
    """From the config's folder, unless they have nothing but the root in common, or it would look like a home."""
    whole, base = path.resolve(), folder.resolve()
    relative = Path(os.path.relpath(whole, base)).as_posix()
    apart = len(Path(os.path.commonpath([whole, base])).parts) <= 1
    return str(whole) if apart or relative.startswith("~") else relative


def _nested(guesses: Mapping[str, Guess]) -> dict[str, Any]:
    """The settings as sections."""
    raw: dict[str, Any] = {}
    for key, setting in guesses.items():
        section, name = section_of(raw, key)
        section[name] = setting.value
    return raw


def _leaves(raw: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted name and the value of each key that is no section."""
    for key, value in raw.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


_HEAD = (
    "# From a look at {}.\n"
    "# Lines that begin with `guessed` say what a value comes from: check them. Here are the settings that are\n"
    "# usually changed; all others have their defaults, which `dealrec config` prints with their meanings.\n\n"
)


def _head(roles: Roles) -> str:
    seen = (printable(f"{table.name} ({table.seen})") for table in (roles.interactions, roles.items))
    return _HEAD.format(" and ".join(seen))


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
