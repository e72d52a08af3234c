"""Progress on stderr: bars on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dealrec.cli.console import PlainConsole
from dealrec.formats import harmless

SECONDS_BETWEEN_LINES = 15.0


class TerminalProgress:
    """Shows what a run does; see `dealrec.engine.stage.Progress`."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or PlainConsole(stderr=True)

    def say(self, message: str) -> None:
        """Print a line."""
        style = "yellow" if message.startswith("warning:") else None
        self.console.print(message, style=style, markup=False, soft_wrap=not self.console.is_terminal)

    @contextmanager
    def bar(self, label: str, total: int | None = None) -> Iterator[Callable[[], None]]:
        """While open, a bar; the function that it yields advances it by one."""
        if self.console.is_terminal:
            with _bar(self.console, with_total=total is not None) as progress:
                task = progress.add_task(harmless(label), total=total)
                yield lambda: progress.advance(task)
        else:
            yield _lines(self.console, label, total)


def _bar(console: Console, *, with_total: bool) -> Progress:
    columns = [
        TextColumn("  {task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    ]
    if with_total:
        columns += [TextColumn("left"), TimeRemainingColumn()]
    return Progress(*columns, console=console, transient=True)


def _lines(console: Console, label: str, total: int | None) -> Callable[[], None]:
    steps, start = 0, time.monotonic()
    last = start

    def advance() -> None:
        nonlocal steps, last
        steps += 1
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            left = f", about {(now - start) / steps * (total - steps):.0f} s left" if total else ""
            console.print(f"  {label}: {steps}{f' of {total}' if total else ''}{left}", markup=False)

    return advance
