"""The command line: `commands` are its verbs; the rest is what a terminal shows and asks."""

from dealrec.cli.entry import main

__all__ = ["main"]
