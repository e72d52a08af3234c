"""What a look at the user's files comes to: settings, each with its reason, and what to say of the files."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
CLOSE = 0.6  # a runner-up that is nearer in score makes the guess ambiguous

Choose = Callable[[str, str, Sequence[str]], str]  # role, name of the file, columns, the best first -> one of these


@dataclass(frozen=True)
class Guess:
    """A setting and why; None: it was given."""

    key: str
    value: Any
    reason: str | None


@dataclass(frozen=True)
class Look:
    """seen: the files that are used, in words. guesses: in the order of the config. shown: settings that are usually
    changed. samples: to select from; of: these, in words. figures: of the data; notes: for the user."""

    seen: Sequence[str]
    guesses: Sequence[Guess]
    shown: Sequence[str]
    samples: int
    of: str
    figures: Mapping[str, Any]
    notes: Sequence[str]


def best(role: str, file: str, options: Iterable[tuple[str, float, T]], choose: Choose | None) -> T:
    """What has the highest score, or the name that is chosen among those of hardly a lower one.

    options: a name and its score for the role, each with what it stands for. choose: asked where a guess is ambiguous;
    None: the best is taken.
    """
    ranking: dict[str, tuple[float, T]] = {}
    for name, score, option in sorted(options, key=lambda option: -option[1]):
        ranking.setdefault(name, (score, option))
    top, *_ = ranking
    close = [name for name, (score, _) in ranking.items() if ranking[top][0] - score < CLOSE]
    return ranking[top if choose is None or len(close) < 2 else choose(role, file, close)][1]
