"""The entry point: errors become one line and an exit status."""

import os
import signal
import sys
import tempfile
import warnings
from contextlib import suppress
from types import FrameType

import typer

from dealrec.cli.commands import app
from dealrec.errors import DealrecError

# By exit status. On Ctrl-C typer turns the KeyboardInterrupt into it.
ENDINGS = {128 + signal.SIGINT: "interrupted"}
ENDINGS |= {128 + number: f"ended by {number.name}" for number in (signal.SIGTERM, signal.SIGHUP)}


def _refused(error: Exception) -> str | None:
    """What the machine has refused: memory, or a place to write that is full, read-only or absent; None: neither."""
    from dealrec.engine.faults import LESS_MEMORY, no_memory, no_space

    if "No usable temporary directory" in str(error):
        return "There is no folder for temporary files. Set TMPDIR to one that can be written."
    if (reason := no_memory(error)) is not None:
        return f"{reason}. {LESS_MEMORY}."
    if (reason := no_space(error)) is None:
        return None
    place = getattr(error, "filename", None) or f"{tempfile.gettempdir()} (TMPDIR)"
    return f"Cannot write to {place}: {reason}. Free some space, or choose another place."


def _end(number: int, _frame: FrameType | None) -> None:
    """Leave, and again every two seconds: what is raised while Python finalises an object is lost."""
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(128 + number))
    signal.setitimer(signal.ITIMER_REAL, 2, 2)
    sys.exit(128 + number)


def main() -> None:
    """Entry point: errors become one line and an exit status."""
    # Model code of third parties writes progress bars and advice to stderr, where ours belong.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, _end)
    try:
        app()
    except DealrecError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except PermissionError as error:
        typer.echo(f"error: {error.filename}: access is denied. Check who may read and write it.", err=True)
        sys.exit(2)
    except Exception as error:  # a full disk, or memory, is named by whichever library met it
        if (line := _refused(error)) is None:
            raise
        typer.echo(f"error: {line}", err=True)
        sys.exit(2)
    except SystemExit as exit_:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if exit_.code in ENDINGS:
            with suppress(OSError):  # a terminal that has hung up
                typer.echo(
                    f"{ENDINGS[exit_.code]}: what is finished is kept; run the same command again to resume", err=True
                )
        raise
