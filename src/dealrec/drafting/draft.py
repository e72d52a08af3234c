"""A first config for the user's files: settings from a look at them, each with the reason in a comment."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dealrec.config import Config, DataConfig
from dealrec.config_file import commented, overridden, parse, printable
from dealrec.drafting.forecast import Plan, plan
from dealrec.drafting.guessing import Choose, Roles, guess
from dealrec.drafting.looking import Look, candidates, is_release, look
from dealrec.errors import ConfigError, DataError
from dealrec.recommenders.files import check_directory

MANY = 10_240  # training samples from which on the paper's budget is a small part of them
BUDGET, POOL = 1024, 4096
MOST_CANDIDATES = 20

_COLUMNS = ("user", "item", "timestamp", "rating", "split", "title")
_SHOWN = (
    *("seed", "data.format", "data.interactions", "data.items", "data.columns", "data.split"),
    *("data.min_rating", "data.k_core", "data.samples_per_user", "data.max_history", "llm.model", "effort.pool"),
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
    """The text of a config; guesses: what was chosen and why; found: figures; notes: what the user should know."""

    text: str
    guesses: tuple[Guess, ...]
    found: Mapping[str, Any]
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
    given = _given_columns(overridden({}, overrides))
    looks, notes = _looks(paths)
    roles = guess(looks, given=given, choose=choose)
    shares = DataConfig()
    chosen = plan(roles, valid_share=shares.valid_share, test_share=shares.test_share)
    guesses = [*_files(roles, folder), *_columns(roles), *_sizes(roles, chosen)]
    if llm is not None:
        guesses.append(Guess("llm.model", _model(llm, folder), None))
    settings = overridden(_nested(guesses), overrides)
    parse(settings, base=folder)  # explains what is wrong with what was given
    config = Config.model_validate(settings)
    said = {override.partition("=")[0].strip() for override in overrides}
    guesses = [replace(found, reason=None) if found.key in said else found for found in guesses]
    comments = {found.key: f"guessed: {found.reason}" for found in guesses if found.reason is not None}
    keys = {*_SHOWN, *(found.key for found in guesses), *map(_whole_union, said)}
    keys |= {"data.valid_share", "data.test_share"} if config.data.split == "time" else set()
    text = _head(roles) + commented(config, keys=keys, notes=comments)
    notes += [*roles.notes, *_warnings(roles, chosen, config)]
    return Draft(text, tuple(guesses), _found(roles, chosen), tuple(notes))


def refuse_to_replace(out: Path) -> None:
    """Raise ConfigError if there is a config already: asked before anything is looked at."""
    if out.exists():
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


def _looks(paths: Sequence[Path]) -> tuple[list[Look], list[str]]:
    """What was named, or what there is where that leaves it open; and a note on each file that cannot be read."""
    if len(paths) == 2:
        return [look(path) for path in paths], []
    named = paths[0] if paths else Path()
    if named.is_dir() and not is_release(named):
        return _readable(_few(candidates(named), named))
    first = look(named)
    beside = [path for path in candidates(named.parent if named.is_file() else named) if not path.samefile(named)]
    beside = [path for path in beside if path.name.endswith((".inter", ".item")) == (first.format == "recbole")]
    if first.format == "recbole":
        beside = [path for path in beside if path.suffix != named.suffix and path.stem == named.stem] or beside
    if len(beside) > MOST_CANDIDATES:
        beside = []
    others, notes = _readable(beside) if beside else ([], [])
    return [first, *others], notes


def _few(found: list[Path], folder: Path) -> list[Path]:
    if not found:
        raise DataError(
            f"There is no file with interactions or items in {folder.resolve()}",
            "Name them: dealrec init INTERACTIONS ITEMS (Parquet, CSV, TSV, JSON Lines, .inter and .item, or a folder"
            " of the DEALRec release).",
        )
    if len(found) > MOST_CANDIDATES:
        raise DataError(
            f"{folder.resolve()} has {len(found):,} files that may be data, which is too many to look at",
            "Name two: dealrec init INTERACTIONS ITEMS",
        )
    return found


def _readable(paths: Sequence[Path]) -> tuple[list[Look], list[str]]:
    looks, notes, errors = [], [], []
    for path in paths:
        try:
            looks.append(look(path))
        except DataError as error:
            notes.append(f"{path.name} is left out: {error}")
            errors.append(error)
    if not looks:
        raise errors[0]
    return looks, notes


def _given_columns(raw: Mapping[str, Any]) -> dict[str, str | None]:
    data = raw.get("data")
    columns = data.get("columns") if isinstance(data, dict) else None
    found = columns if isinstance(columns, dict) else {}
    return {name: found[name] for name in _COLUMNS if name in found and isinstance(found[name], str | None)}


def _files(roles: Roles, folder: Path) -> list[Guess]:
    form = roles.interactions.format
    why = {"table": "as the names of the files end", "recbole": "the files end in .inter and .item"}
    why["dealrec"] = "a folder of sequential_*.txt"
    one = roles.interactions.path == roles.items.path
    return [
        Guess("data.format", form, why[form]),
        Guess("data.interactions", _relative(roles.interactions.path, folder), f"has users; {roles.interactions.seen}"),
        Guess(
            "data.items",
            _relative(roles.items.path, folder),
            "the same file, as it has titles" if one else f"has titles; {roles.items.seen}",
        ),
    ]


def _columns(roles: Roles) -> list[Guess]:
    guesses = []
    for role in _COLUMNS:
        option = roles.chosen.get(role)  # type: ignore[call-overload]
        if option is None:
            if role == "timestamp" and roles.interactions.format != "dealrec":
                guesses.append(Guess(f"data.columns.{role}", None, "no column can be read as a time"))
            continue
        column = option.partner if roles.interactions.format == "dealrec" and option.partner else option.column
        if role == "user" and roles.interactions.format == "dealrec":
            continue  # the release has no names
        missing = f"; {option.column.missing:,} rows have none" if option.column.missing else ""
        reason = f"{option.column.distinct:,} distinct values, {option.reason}{missing}"
        guesses.append(Guess(f"data.columns.{role}", column.name, reason))
    return guesses


def _sizes(roles: Roles, chosen: Plan) -> list[Guess]:
    guesses = [Guess("data.split", chosen.split, chosen.reason)]
    if chosen.samples is not None and not chosen.samples.valid:
        guesses.append(Guess("influence.risk", "train", "the split leaves no samples for validation"))
    exact = chosen.samples is not None
    samples = chosen.samples.train if chosen.samples else roles.chosen["user"].column.distinct
    of = f"{samples:,} training samples" if exact else f"{samples:,} users or more"
    if samples >= MANY:
        guesses.append(Guess("effort.pool", POOL, "4 times the budget, a usual pool"))
        guesses.append(Guess("select.budget", BUDGET, f"as in the paper; {BUDGET / samples:.1%} of {of}"))
    else:
        guesses.append(Guess("effort.pool", 0.4, f"4 times the budget; of {of}"))
        guesses.append(Guess("select.budget", 0.1, f"of {of}; the share of the paper, 2 %, would be few"))
    return guesses


def _model(llm: str, folder: Path) -> str:
    path = Path(llm).expanduser()
    if path.is_dir():
        check_directory(path, setting="--llm")
        relative = _relative(path, folder)
        return relative if relative.startswith((".", "/")) else f"./{relative}"
    if llm.startswith((".", "/", "~")):
        raise ConfigError(f"There is no model directory {llm}", "Check --llm.")
    return llm


def _relative(path: Path, folder: Path) -> str:
    """From the config's folder, unless they have nothing but the root in common."""
    whole, base = path.resolve(), folder.resolve()
    if len(Path(os.path.commonpath([whole, base])).parts) <= 1 or whole.drive != base.drive:
        return str(whole)
    return Path(os.path.relpath(whole, base)).as_posix()


def _nested(guesses: Sequence[Guess]) -> dict[str, Any]:
    raw: dict[str, Any] = {}
    for found in guesses:
        *parents, last = found.key.split(".")
        section = raw
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = found.value
    return raw


def _whole_union(key: str) -> str:
    """A solver's key goes with its kind, so the whole section is shown."""
    section, solver, _ = key.partition(".solver.")
    return f"{section}.solver" if solver else key


def _head(roles: Roles) -> str:
    seen = " and ".join(printable(f"{found.path.name} ({found.seen})") for found in (roles.interactions, roles.items))
    return (
        f"# From a look at {seen}.\n"
        "# Lines that begin with `guessed` say what a value comes from: check them. Here are the settings that are\n"
        "# usually changed; all others have their defaults, which `dealrec config` prints with their meanings.\n\n"
    )


def _warnings(roles: Roles, chosen: Plan, config: Config) -> list[str]:
    found = []
    if config.data.split == "leave-last-out":
        found.append(f"split leave-last-out, as {chosen.reason}; the future then leaks into training")
    if config.data.columns.timestamp is None and config.data.format != "dealrec":
        found.append("no column is used as time: the order of the rows stands for it")
    for role, option in roles.chosen.items():
        if option.column.missing and role != "title":
            found.append(
                f"{option.column.missing:,} rows of {roles.interactions.path.name} have no '{option.column.name}';"
                " `dealrec validate` will refuse them"
            )
    if chosen.samples is None and roles.interactions.whole and not any(o.column.missing for o in roles.chosen.values()):
        found.append("the split leaves training, validation or test empty: `dealrec validate` will say more")
    return found


def _found(roles: Roles, chosen: Plan) -> dict[str, Any]:
    """Figures; of a sample they are lower bounds, and `sampled` says what was read."""
    moments = roles.chosen["timestamp"].column.moments if "timestamp" in roles.chosen else None
    sampled = {found.path.name: found.seen for found in (roles.interactions, roles.items) if not found.whole}
    return {
        "interactions": roles.interactions.rows,
        "users": roles.chosen["user"].column.distinct,
        "items": roles.chosen["item"].column.distinct,
        "listed_items": roles.items.rows,
        "first": moments[0].isoformat() if moments else None,
        "last": moments[1].isoformat() if moments else None,
        "samples": asdict(chosen.samples) if chosen.samples else None,
        "sampled": sampled,
    }
