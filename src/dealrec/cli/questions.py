"""Questions on a terminal, where a guess is ambiguous."""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer

from dealrec.cli.terminal import say
from dealrec.formats import harmless

_WHAT = {
    "user": "the users",
    "item": "the items",
    "timestamp": "the times",
    "rating": "the ratings",
    "split": "the splits",
    "title": "the titles",
    "category": "the categories",
    "history": "the items before the target",
    "target": "the target",
}


def can_ask() -> bool:
    """Whether a person is at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def ask(role: str, file: str, columns: Sequence[str]) -> str:
    """Which column it is; the best guess is what Enter means. Asked on stderr, until the answer is one of them.

    Raises KeyboardInterrupt on Ctrl-C, and on Ctrl-D.
    """
    text = harmless(f"Which column of {file} holds {_WHAT[role]}? There are {', '.join(columns)}")
    while True:
        with _interruptible():
            answer = typer.prompt(text, default=columns[0], err=True)
        if answer in columns:
            return str(answer)
        say(f"There is no {answer!r} among them.", err=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    # With the handler that polars installs, Ctrl-C would have the read begin anew.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except typer.Abort:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, before)
