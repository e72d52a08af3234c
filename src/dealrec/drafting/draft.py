"""A first config for the user's files: settings from a look at them, each with the reason in a comment."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dealrec.config.files import checked, commented, nested, overridden, printable
from dealrec.config.recommenders import RECOMMENDERS
from dealrec.drafting.interactions import look_at_interactions
from dealrec.drafting.looks import Choose, Guess, Look
from dealrec.drafting.rows import look_at_rows
from dealrec.engine.settings import leaves
from dealrec.errors import ConfigError
from dealrec.recommenders.files import check_directory

MANY = 10_240  # training samples from which on the paper's budget is a small part of them
BUDGET, POOL = 1024, 4096

_SHOWN = (
    *("seed", "data.format", "llm.model", "pool.size", "select.method", "select.budget", "finetune.epochs"),
    *("finetune.learning_rate", "finetune.batch_size", "finetune.micro_batch_size"),
)
_HEAD = (
    "# From a look at {}.\n"
    "# Lines that begin with `guessed` say what a value comes from: check them. Here are the settings that are\n"
    "# usually changed; all others have their defaults, which `dealrec config` prints with their meanings.\n\n"
)


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
    said = dict(leaves(overridden({}, overrides)))
    if llm is not None:
        said.setdefault("llm.model", _model(llm, folder))
    with reachable("Check the path, and that you may read it."):
        look = look_at_rows(paths, said, choose, most=MANY) or look_at_interactions(paths, said, choose)
    guesses = {guess.key: replace(guess, value=_located(guess.value, folder)) for guess in look.guesses}
    guesses |= {guess.key: guess for guess in _budget(look)}
    guesses |= {key: Guess(key, value, None) for key, value in said.items()}
    config = checked(nested({key: guess.value for key, guess in guesses.items()}))
    comments = {key: f"guessed: {guess.reason}" for key, guess in guesses.items() if guess.reason is not None}
    # A solver's key goes with its kind, so the whole section is shown.
    sections = [key.partition(".solver.")[0] + ".solver" * (".solver." in key) for key in said]
    seen = " and ".join(map(printable, look.seen))
    text = _HEAD.format(seen) + commented(config, keys={*_SHOWN, *look.shown, *comments, *sections}, notes=comments)
    notes = list(look.notes)
    kind = RECOMMENDERS[config.recommender]
    if kind.model_required and kind.pretrained not in said:
        notes.append(f"no LLM was named: llm.model is {config.llm.model}; name yours there, or by --llm")
    return Draft(text, tuple(guesses.values()), look.figures, tuple(dict.fromkeys(notes)))


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


@contextmanager
def reachable(remedy: str) -> Iterator[None]:
    """Raise ConfigError for what the system refuses, such as a folder that is closed to the user."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"Cannot look at {error.filename} ({error.strerror})", remedy) from None


def _budget(look: Look) -> Iterator[Guess]:
    """A pool and a budget for so many samples."""
    if look.samples >= MANY:
        yield Guess("pool.size", POOL, "4 times the budget, a usual pool")
        yield Guess("select.budget", BUDGET, f"as in the paper; {BUDGET / look.samples:.1%} of {look.of}")
    else:
        yield Guess("pool.size", 0.4, f"4 times the budget; of {look.of}")
        yield Guess("select.budget", 0.1, f"of {look.of}; the share of the paper, 2 %, would be few")


def _model(llm: str, folder: Path) -> str:
    path = Path(os.path.expanduser(llm))  # noqa: PTH111 - leaves as it is what merely begins with ~
    with reachable("Check --llm."):
        if not (path.is_dir() or llm.startswith((".", "/", "~"))):
            return llm
        if not (path / "config.json").is_file():  # whether the rest is whole, `validate` says
            check_directory(path, setting="--llm")
    relative = str(_located(path, folder))
    return relative if relative.startswith((".", "/")) else f"./{relative}"


def _located(value: Any, folder: Path) -> Any:
    """A setting as it is written: paths from the config's folder, unless they have nothing but the root in common, or
    would look like a home."""
    if isinstance(value, list):
        return [_located(each, folder) for each in value]
    if not isinstance(value, Path):
        return value
    whole, base = value.resolve(), folder.resolve()
    relative = Path(os.path.relpath(whole, base)).as_posix()
    apart = len(Path(os.path.commonpath([whole, base])).parts) <= 1
    return str(whole) if apart or relative.startswith("~") else relative
