"""Samples as JSON Lines; prompts and completions are what TRL and most stacks read."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows such as prompt and completion, and nothing else in them; how many there were.

    Some stacks train on any further column they find, so scores and provenance belong into a file of their own.
    """
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count
