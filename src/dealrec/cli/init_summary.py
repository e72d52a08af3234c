"""What a person sees after `dealrec init`: what was found, what was guessed, and what to do next."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from dealrec.cli.json_output import print_json
from dealrec.drafting.draft import Draft


def show_init(drafted: Draft, out: Path, *, as_json: bool) -> None:
    """The notes go to stderr, the rest to stdout: figures, the columns, the config's path and the next command."""
    then = f"dealrec validate {shlex.quote(str(out))}"
    if as_json:
        guesses = [asdict(found) for found in drafted.guesses]
        facts = {"config": str(out), "next": then, "found": drafted.figures, "guesses": guesses}
        print_json({**facts, "notes": drafted.notes})
        return
    for note in drafted.notes:
        typer.echo(f"note: {note}", err=True)
    found = drafted.figures
    files = {made.key: made.value for made in drafted.guesses if made.key in ("data.interactions", "data.items")}
    print(f"interactions: {files['data.interactions']} ({_interactions(found)})")
    print(f"items: {files['data.items']} ({found['listed_items']:,} rows)")
    for made in drafted.guesses:
        if made.key.startswith("data.columns.") or made.key == "data.split":
            print(f"{made.key.removeprefix('data.')}: {'none' if made.value is None else made.value}")
    if found["samples"]:
        print(", ".join(f"{part} samples: {number:,}" for part, number in found["samples"].items()))
    print(f"Wrote {out}; next: {then}")


def _interactions(found: Mapping[str, Any]) -> str:
    parts = [f"{found['interactions']:,} rows"]
    least = "at least " if found["sampled"] else ""
    parts += [f"{least}{found[name]:,} {name}" for name in ("users", "items")]
    if found["first"]:
        parts.append(f"{found['first'][:10]} to {found['last'][:10]}")
    return ", ".join(parts)
