"""A first config for the user's files: settings from a look at them, each with the reason in a comment."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dealrec.config import Config
from dealrec.config.files import commented, overridden, parse, printable
from dealrec.config.recommenders import RECOMMENDERS
from dealrec.drafting.files import Files, files, reachable
from dealrec.drafting.guesses import Choose, Roles, guess
from dealrec.drafting.options import Given, separator_of
from dealrec.drafting.splits import SplitChoice, choose_split
from dealrec.errors import ConfigError, DataError
from dealrec.recommenders.files import check_directory

MANY = 10_240  # training samples from which on the paper's budget is a small part of them
BUDGET, POOL = 1024, 4096

_COLUMNS = ("user", "item", "timestamp", "rating", "split", "title", "category")
_SHOWN = (
    *("seed", "data.format", "data.interactions", "data.items", "data.columns", "data.split"),
    *("data.min_rating", "data.k_core", "data.samples_per_user", "data.max_history", "llm.model"),
    *("llm.prompt.max_items", "effort.pool"),
    *("select.budget", "finetune.epochs", "finetune.learning_rate", "finetune.batch_size"),
    *("finetune.micro_batch_size", "finetune.patience"),
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
    """Settings for one or two files in either order, a folder of the DEALRec release, or what there is in a folder.

    paths: none means the working directory. folder: of the config; its paths are relative to it where the two have
    more than the root in common. llm: a directory or a model id. overrides: `key=value`, which are not guessed.
    choose: asked where a guess is ambiguous. Raises DataError for files that cannot be read and where a column that
    must be there is not found; ConfigError for what was given wrongly.
    """
    raw = overridden({}, overrides)
    said = dict(_leaves(raw))
    _refuse_files(said)
    seen = files(paths)
    roles = _guessed(seen, _given_columns(said), choose)
    guesses = [*_files(roles, folder), *_columns(roles)]
    data = parse({"data": _merged(_nested(guesses), raw)["data"]}, base=folder).data
    chosen = choose_split(roles, data, said="data.split" in said)
    guesses += _sizes(roles, chosen)
    if llm is not None:
        guesses.append(Guess("llm.model", _model(llm, folder), None))
    settings = _merged(_nested(guesses), raw)
    parse(settings, base=folder)  # explains what is wrong with what was given
    config = Config.model_validate(settings)
    guesses = [Guess(guess.key, said[guess.key], None) if guess.key in said else guess for guess in guesses]
    comments = {guess.key: f"guessed: {guess.reason}" for guess in guesses if guess.reason is not None}
    keys = {*_SHOWN, *(guess.key for guess in guesses), *map(_whole_union, said)}
    keys |= {"data.valid_share", "data.test_share"} if config.data.split == "time" else set()
    text = _head(roles) + commented(config, keys=keys, notes=comments)
    notes = [*seen.notes, *roles.notes, *_warnings(roles, chosen, config)]
    recommender = RECOMMENDERS[config.recommender]
    if recommender.model_required and llm is None and recommender.pretrained not in said:
        notes.append(f"no LLM was named: llm.model is {config.llm.model}; name yours there, or by --llm")
    return Draft(text, tuple(guesses), _figures(roles, chosen), tuple(notes))


def refuse_to_replace(out: Path) -> None:
    """Raise ConfigError if there is a config already: asked before anything is looked at."""
    with reachable("Choose another place: --out."):
        there = out.exists()
    if there:
        raise ConfigError(f"{out} is there already", "Give --force to replace it, or another name: --out FILE")


def write(drafted: Draft, out: Path, *, force: bool) -> None:
    """Write the config. Raises ConfigError if there is one already, unless `force`, or it cannot be written."""
    try:
        with out.open("w" if force else "x", encoding="utf-8") as file:
            file.write(drafted.text)
    except FileExistsError:
        refuse_to_replace(out)
    except OSError as error:
        raise ConfigError(f"Cannot write {out} ({error.strerror})", "Choose another place: --out.") from None


def _refuse_files(said: Mapping[str, Any]) -> None:
    for key in ("data.interactions", "data.items"):
        if key in said:
            raise ConfigError(
                f"{key} is set, but init looks at the files that it writes down",
                "Name them so: dealrec init INTERACTIONS ITEMS",
            )


def _guessed(seen: Files, given: Given, choose: Choose | None) -> Roles:
    try:
        return guess(seen.previews, named=seen.named, given=given, choose=choose)
    except DataError as error:  # what was left out may be the cause
        raise DataError("; ".join([error.cause, *(note.rstrip(".") for note in seen.notes)]), error.remedy) from None


def _given_columns(said: Mapping[str, Any]) -> Given:
    given = {role: said[f"data.columns.{role}"] for role in _COLUMNS if f"data.columns.{role}" in said}
    return {role: column for role, column in given.items() if isinstance(column, str | None)}


def _files(roles: Roles, folder: Path) -> list[Guess]:
    log, items = roles.interactions, roles.items
    endings = {"table": "as the names of the files end", "recbole": "the files end in .inter and .item"}
    titled = "the same file, as it has titles" if log.path == items.path else f"has titles; {items.seen()}"
    return [
        Guess("data.format", log.format, endings.get(log.format, "a folder of sequential_*.txt")),
        Guess("data.interactions", _relative(log.path, folder), f"has users; {log.seen()}"),
        Guess("data.items", _relative(items.path, folder), titled),
    ]


def _columns(roles: Roles) -> list[Guess]:
    guesses = []
    release = roles.interactions.format == "dealrec"  # which has no names of its own
    for role in _COLUMNS:
        option = roles.chosen.get(role)  # type: ignore[call-overload]
        if option is None and role == "timestamp" and not release:
            guesses.append(Guess(f"data.columns.{role}", None, "no column can be read as a time"))
        if option is None or (role == "user" and release):
            continue
        profile = option.partner if release else option.profile
        missing = f"; {profile.missing:,} rows have none" if profile.missing else ""
        reason = f"{option.profile.distinct:,} distinct values, {option.reason}{missing}"
        guesses.append(Guess(f"data.columns.{role}", profile.name, reason))
        if role == "category" and (mark := separator_of(profile)):
            guesses.append(Guess("data.columns.category_separator", mark, "stands between several in one text"))
    return guesses


def _sizes(roles: Roles, chosen: SplitChoice) -> list[Guess]:
    guesses = [Guess("data.split", chosen.split, chosen.reason)]
    if chosen.samples and not chosen.samples["valid"]:
        guesses.append(Guess("influence.risk", "train", "the split leaves no samples for validation"))
    samples = chosen.samples["train"] if chosen.samples else roles.chosen["user"].profile.distinct
    of = f"{samples:,} training samples" if chosen.samples else f"{samples:,} users or more"
    if samples >= MANY:
        pool = Guess("effort.pool", POOL, "4 times the budget, a usual pool")
        return [*guesses, pool, Guess("select.budget", BUDGET, f"as in the paper; {BUDGET / samples:.1%} of {of}")]
    few = Guess("select.budget", 0.1, f"of {of}; the share of the paper, 2 %, would be few")
    return [*guesses, Guess("effort.pool", 0.4, f"4 times the budget; of {of}"), few]


def _model(llm: str, folder: Path) -> str:
    path = Path(os.path.expanduser(llm))  # noqa: PTH111 - leaves as it is what merely begins with ~
    with reachable("Check --llm."):
        if path.is_dir():
            check_directory(path, setting="--llm")
            relative = _relative(path, folder)
            return relative if relative.startswith((".", "/")) else f"./{relative}"
    if llm.startswith((".", "/", "~")):
        raise ConfigError(f"There is no model directory {llm}", "Check --llm.")
    return llm


def _relative(path: Path, folder: Path) -> str:
    """From the config's folder, unless they have nothing but the root in common, or it would look like a home."""
    whole, base = path.resolve(), folder.resolve()
    if len(Path(os.path.commonpath([whole, base])).parts) <= 1 or whole.drive != base.drive:
        return str(whole)
    relative = Path(os.path.relpath(whole, base)).as_posix()
    return str(whole) if relative.startswith("~") else relative


def _nested(guesses: Sequence[Guess]) -> dict[str, Any]:
    raw: dict[str, Any] = {}
    for setting in guesses:
        *parents, last = setting.key.split(".")
        section = raw
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = setting.value
    return raw


def _merged(raw: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of both, at every depth; where both have one, as said."""
    merged = dict(raw)
    for key, value in said.items():
        both = isinstance(value, dict) and isinstance(raw.get(key), dict)
        merged[key] = _merged(raw[key], value) if both else value
    return merged


def _leaves(raw: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted name and the value of each key that is no section with keys in it."""
    for key, value in raw.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _whole_union(key: str) -> str:
    """A solver's key goes with its kind, so the whole section is shown."""
    section, solver, _ = key.partition(".solver.")
    return f"{section}.solver" if solver else key


def _head(roles: Roles) -> str:
    tables = (roles.interactions, roles.items)
    seen = " and ".join(printable(f"{table.name} ({table.seen()})") for table in tables)
    return (
        f"# From a look at {seen}.\n"
        "# Lines that begin with `guessed` say what a value comes from: check them. Here are the settings that are\n"
        "# usually changed; all others have their defaults, which `dealrec config` prints with their meanings.\n\n"
    )


def _warnings(roles: Roles, chosen: SplitChoice, config: Config) -> list[str]:
    notes = list(dict.fromkeys((*roles.interactions.table.warnings, *roles.items.table.warnings)))
    if chosen.split == "leave-last-out" and chosen.reason:
        notes.append(f"split leave-last-out, as {chosen.reason}; the future then leaks into training")
    if config.data.columns.timestamp is None and config.data.format != "dealrec":
        notes.append("no column is used as time: the order of the rows stands for it")
    refused = "`dealrec validate` will refuse them"
    for role, option in roles.chosen.items():
        table = roles.items if role in ("title", "category") else roles.interactions
        if option.profile.missing and table is not roles.items:
            notes.append(f"{option.profile.missing:,} rows of {table.name} have no '{option.name}'; {refused}")
        if role == "item" and option.partner is not option.profile and option.partner.missing:
            rows = f"{option.partner.missing:,} rows of {roles.items.name}"
            notes.append(f"{rows} have no '{option.partner.name}'; {refused}")
        if f"{option.name}_duplicated_0" in table.table.names:
            notes.append(f"two columns of {table.name} are called '{option.name}'; {refused}")
    complete = not any(option.profile.missing for option in roles.chosen.values())
    if chosen.samples is None and roles.interactions.whole and complete:
        notes.append("the split leaves training, validation or test empty: `dealrec validate` will say more")
    if chosen.samples is not None and not chosen.samples["train"]:
        notes.append(
            "no user has two interactions for training, so there are no training samples: `dealrec validate` will"
            " refuse the data"
        )
    return notes


def _figures(roles: Roles, chosen: SplitChoice) -> dict[str, Any]:
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
        "samples": chosen.samples,
        "sampled": {table.name: table.seen() for table in (roles.interactions, roles.items) if not table.whole},
    }
