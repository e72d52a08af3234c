"""Questions on a terminal, where a guess is ambiguous."""

import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from dealrec.drafting.guessing import Question

_WHAT = {
    "user": "the users",
    "item": "the items",
    "timestamp": "the times",
    "rating": "the ratings",
    "split": "the splits",
    "title": "the titles",
}


def can_ask() -> bool:
    """Whether a person is at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def ask(question: "Question") -> str:
    """Which column it is; the best guess is what Enter means. Asked on stderr, until the answer is one of them."""
    options = ", ".join(question.options)
    while True:
        text = f"Which column of {question.file} holds {_WHAT[question.role]}? There are {options}"
        answer = typer.prompt(text, default=question.options[0], err=True)
        if answer in question.options:
            return str(answer)
        typer.echo(f"There is no {answer!r} among them.", err=True)
