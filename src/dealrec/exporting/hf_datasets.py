"""Hugging Face `datasets`: a data set saved to disk, and its card."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from dealrec.errors import ConfigError
from dealrec.exporting.handover import Handover

CARD = "README.md"


def write(handover: Handover, folder: Path) -> None:
    """Save the rows so that `datasets.load_from_disk` reads them."""
    with _datasets() as datasets:
        datasets.Dataset.from_list(handover.rows()).save_to_disk(str(folder))


def save_tokens(handover: Handover, folder: Path) -> None:
    """Save input_ids, attention_mask and labels as the part `train` of a DatasetDict."""
    with _datasets() as datasets:
        rows = datasets.Dataset.from_list(handover.token_rows(mask=True))
        datasets.DatasetDict({"train": rows}).save_to_disk(str(folder))


def card(provenance: Mapping[str, Any], *, licence: str, columns: Sequence[str]) -> str:
    """The data set card: what the rows are, how they were selected, from what, and under which licence."""
    samples, selection = provenance["samples"], provenance["selection"]
    head = yaml.safe_dump(
        {"license": licence, "pretty_name": "Selected fine-tuning samples", "tags": ["dealrec", "recommendation"]},
        sort_keys=False,
    )
    settings: dict[str, Any] = {}
    sources: dict[tuple[str, str], None] = {}
    for stage in provenance["stages"].values():  # what two stages read is the same, and told once
        settings |= {name: value for name, value in stage["settings"].items() if name not in settings}
        sources |= {(file["name"], file["sha256"]): None for file in stage["outside"]}
    return f"""---
{head}---

# {samples:,} of {provenance["training_samples"]:,} training samples of a recommender

Selected by {selection["method"]}, with dealrec {provenance["dealrec"]} and seed {selection["seed"]}.
{selection["summary"]}

Columns: {", ".join(f"`{name}`" for name in columns)}. `provenance.json` has the sample ids of the rows, in their order.

```python
from datasets import load_from_disk

train = load_from_disk("path/to/this/folder")
```

The rows hold titles and what users did: the licence is that of the data they were made from. `license` above is what
was stated at the export.

## How the samples were selected
```yaml
{yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).rstrip()}
```

## What they were made from
| file | SHA-256 |
|---|---|
{_table(sources)}

## Files
| file | SHA-256 |
|---|---|
{_table(provenance["files"].items())}
"""


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"| `{name}` | `{digest}` |" for name, digest in rows)


@contextmanager
def _datasets() -> Iterator[Any]:
    """The package, which shows no progress bars while this is open."""
    try:
        import datasets
    except ImportError:
        raise ConfigError("This export needs the package datasets", "Install it: pip install 'datasets>=4.0'") from None
    enabled = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield datasets
    finally:
        if enabled:
            datasets.enable_progress_bars()
