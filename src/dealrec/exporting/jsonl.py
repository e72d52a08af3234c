"""Prompts and completions as JSON Lines, which TRL and most stacks read."""

import json
from collections.abc import Iterable
from pathlib import Path


def write_jsonl(path: Path, rows: Iterable[tuple[str, str]]) -> int:
    """Write (prompt, completion) rows, and nothing else in them; how many there were.

    Some stacks train on any further column they find, so scores and provenance belong into a file of their own.
    """
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for prompt, completion in rows:
            file.write(json.dumps({"prompt": prompt, "completion": completion}, ensure_ascii=False) + "\n")
            count += 1
    return count
