"""What a person sees after `dealrec init`: what was found, what was guessed, and what to do next."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dealrec.cli.json_output import print_json
from dealrec.cli.terminal import say
from dealrec.drafting.draft import Draft


def show_init(draft: Draft, out: Path, *, as_json: bool) -> None:
    """The notes go to stderr, the rest to stdout: figures, the columns, the config's path and the next command."""
    command = f"dealrec validate {shlex.quote(str(out))}"
    figures = draft.figures
    if as_json:
        guesses = [asdict(guess) for guess in draft.guesses]
        facts = {"config": str(out), "next": command, "found": figures, "guesses": guesses}
        print_json({**facts, "notes": draft.notes})
        return
    for note in draft.notes:
        say(f"note: {note}", err=True)
    values = {guess.key: guess.value for guess in draft.guesses}
    if "layout" in figures:
        rows = values["data.rows"]
        name = f"{rows[0]} and {len(rows) - 1:,} more" if isinstance(rows, list) else rows
        say(f"training rows: {name} ({figures['layout']}; {figures['looked_at']:,} rows looked at)")
        for key, value in values.items():
            if key.startswith("data.columns.") or key in ("data.valid_rows", "data.test_rows"):
                say(f"{key.removeprefix('data.')}: {value}")
        say(f"Wrote {out}; next: {command}")
        return
    say(f"interactions: {values['data.interactions']} ({_interactions(figures)})")
    say(f"items: {values['data.items']} ({figures['listed_items']:,} rows)")
    for key, value in values.items():
        if key.startswith("data.columns.") or key == "data.split":
            say(f"{key.removeprefix('data.')}: {'none' if value is None else value}")
    if figures["samples"]:
        say(", ".join(f"{part} samples: {number:,}" for part, number in figures["samples"].items()))
    say(f"Wrote {out}; next: {command}")


def _interactions(figures: Mapping[str, Any]) -> str:
    parts = [f"{figures['interactions']:,} rows"]
    least = "at least " if figures["sampled"] else ""
    parts += [f"{least}{figures[name]:,} {name}" for name in ("users", "items")]
    if figures["first"]:
        parts.append(f"{figures['first'][:10]} to {figures['last'][:10]}")
    return ", ".join(parts)
