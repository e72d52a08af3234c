"""Lines for a terminal: nothing that stands in the user's files can move its cursor or turn a line round."""

import typer

from dealrec.formats import harmless


def say(text: object, *, err: bool = False) -> None:
    """Print a line, to stderr if `err`."""
    typer.echo(harmless(str(text)), err=err)
