"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from dealrec.cli import completion
from dealrec.stages import STAGE_NAMES

STACK_NAMES = ("trl", "llamafactory", "axolotl", "jsonl", "parquet", "datasets", "rows", "weights", "prompts")
FORM_NAMES = ("text", "messages", "tokens")

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file; write one with: dealrec init")]
RunDir = Annotated[Path, typer.Option("--run-dir", help="Folder of the run; made if needed, resumed if there.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a setting, e.g. select.budget=1024.",
        autocompletion=completion.override,
    ),
]
UNTIL = typer.Option(
    metavar="STAGE", help=f"Last stage: {', '.join(STAGE_NAMES)}.", autocompletion=completion.among(STAGE_NAMES)
)
Until = Annotated[str, UNTIL]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Measure small pieces and say what a run would take.")]
