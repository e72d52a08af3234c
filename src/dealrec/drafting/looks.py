"""What a look at the user's files comes to: settings, each with its reason, and what to say of the files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


def best(role: str, file: str, scores: Mapping[str, float], choose: Choose | None, *, close: float) -> str:
    """The column with the highest score, or the one that is chosen among those that are hardly worse.

    choose: asked where a guess is ambiguous; None: the best is taken. close: scores that differ by less are ambiguous.
    """
    ranking = sorted(scores, key=lambda name: -scores[name])
    rivals = [name for name in ranking if scores[ranking[0]] - scores[name] < close]
    return ranking[0] if choose is None or len(rivals) < 2 else choose(role, file, rivals)
