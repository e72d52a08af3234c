"""The entry point: errors become one line and an exit status."""

import os
import sys
import tempfile
import warnings

import typer

from dealrec.cli.commands import app
from dealrec.errors import DealrecError

INTERRUPTED = 130  # exit status on Ctrl-C; typer turns the KeyboardInterrupt into it


def _unwritable(error: Exception) -> str | None:
    """What is full, read-only or absent, where that is why a command could not write; None: another fault."""
    from dealrec.engine.runner import no_space

    if "No usable temporary directory" in str(error):
        return "There is no folder for temporary files. Set TMPDIR to one that can be written."
    if (reason := no_space(error)) is None:
        return None
    place = getattr(error, "filename", None) or f"{tempfile.gettempdir()} (TMPDIR)"
    return f"Cannot write to {place}: {reason}. Free some space, or choose another place."


def main() -> None:
    """Entry point: errors become one line and an exit status."""
    # Model code of third parties writes progress bars and advice to stderr, where ours belong.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    try:
        app()
    except DealrecError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except PermissionError as error:
        typer.echo(f"error: {error.filename}: access is denied. Check who may read and write it.", err=True)
        sys.exit(2)
    except Exception as error:  # a full disk is named by whichever library met it
        if (line := _unwritable(error)) is None:
            raise
        typer.echo(f"error: {line}", err=True)
        sys.exit(2)
    except SystemExit as exit_:
        if exit_.code == INTERRUPTED:
            typer.echo("interrupted; run the same command again to resume", err=True)
        raise
