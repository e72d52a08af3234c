"""What a person sees on stdout at the end of a command: tables, or JSON on request."""

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.console import Console
from rich.table import Table

from dealrec.cli.console import PlainConsole
from dealrec.cli.json_output import print_json
from dealrec.cli.terminal import say
from dealrec.columns import HISTORY, INFLUENCE, ITEM, OVERALL, RANK, REASON, SAMPLE, STRATUM, TARGET, TITLE
from dealrec.config import Config
from dealrec.engine.manifest import Manifest
from dealrec.engine.run_directory import read_table
from dealrec.engine.runner import Outcome, State
from dealrec.engine.stage import Stage
from dealrec.formats import correlation, cut, difference, in_unit, memory, metric, number, percent, seconds

if TYPE_CHECKING:
    from dealrec.estimates import Estimates
    from dealrec.exporting import Exported
    from dealrec.reporting.notes import Note

SHOWN_SAMPLES, TITLE_WIDTH = 8, 28


def show_states(states: Sequence[tuple[Stage, State, Manifest | None]], *, as_json: bool) -> None:
    """The stages of a run directory."""
    if as_json:
        rows = [{"stage": stage.name, "state": state, **_cost(manifest)} for stage, state, manifest in states]
        print_json(rows)
        return
    table = table_of("stage", "state", ">time", ">CPU time", ">peak memory")
    for stage, state, manifest in states:
        table.add_row(stage.name, state, *_cost_cells(manifest))
    console().print(table)


def show_estimates(estimates: "Estimates", run_dir: Path, *, as_json: bool) -> None:
    """What a run would do and cost."""
    if as_json:
        total = {name: getattr(estimates, name) for name in ("seconds", "at_most", "peak_memory_bytes")}
        print_json({"run_dir": str(run_dir), **asdict(estimates), "total": total})
        return
    out = console()
    table = table_of("stage", "", "what it does", ">time", ">peak memory", title="What a run would do, and its cost")
    for stage in estimates.stages:
        figures = ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in stage.figures.items())
        peak = _expected_memory(stage.peak_memory_bytes)
        if stage.past:
            time, peak = f"(took {_expected_time(stage.seconds, None)})", f"({peak})"
        else:
            time = _expected_time(stage.seconds, stage.at_most)
        table.add_row(stage.stage, stage.plan, figures, time, peak)
    time, peak = _expected_time(estimates.seconds, estimates.at_most), _expected_memory(estimates.peak_memory_bytes)
    table.add_row("all", "", "", time, peak, style="bold")
    out.print(table)
    to_do = [stage.stage for stage in estimates.to_do]
    if "export" in to_do[:-1]:
        export = estimates.until("export")
        time = _expected_time(export.seconds, export.at_most)
        out.print(f"The training file, up to export: {time}. With --until export a run ends there.", soft_wrap=True)
    for stage in estimates.stages:
        for note in stage.notes:
            out.print(f"{stage.stage}: {note}", style="dim")
    out.print(
        f"Measured on small pieces, on {estimates.device} with {estimates.threads} threads, in"
        f" {seconds(estimates.probe_seconds)}; what else the machine does, now or then, makes the run shorter or"
        f" longer. Nothing was written to {run_dir}.",
        style="dim",
        soft_wrap=True,
    )


def _expected_time(value: float | None, at_most: float | None) -> str:
    if value is None:
        return "-"
    if at_most is None or round(at_most, 1) == round(value, 1) == 0:
        return seconds(value)
    bound = f"up to about {seconds(at_most)}"
    return bound if at_most <= value else f"{seconds(value)}, {bound}"


def _expected_memory(size: int | None) -> str:
    return "-" if size is None else memory(size)


def show_outcomes(outcomes: Sequence[Outcome], run_dir: Path, config: Config, *, as_json: bool) -> None:
    """What a run did, what it selected and why, and what came of it."""
    complete = {outcome.stage for outcome in outcomes}
    if as_json:
        stages = [{"stage": o.stage, "ran": o.ran, **_cost(o.manifest), "facts": o.manifest.facts} for o in outcomes]
        results = _results(run_dir) if "compare" in complete else {}
        print_json({"run_dir": str(run_dir), "stages": stages, "results": results})
        return
    out = console()
    if "select" in complete:
        _show_selection(out, run_dir, outcomes)
    table = table_of("stage", "", ">time", ">CPU time", ">peak memory", title="Stages")
    for outcome in outcomes:
        table.add_row(outcome.stage, "ran" if outcome.ran else "up to date", *_cost_cells(outcome.manifest))
    wall = sum(outcome.manifest.wall_seconds for outcome in outcomes)
    cpu = sum(outcome.manifest.cpu_seconds for outcome in outcomes)
    table.add_row("all", "", seconds(wall), seconds(cpu), "")
    out.print(table)
    if "compare" in complete:
        _show_results(out, _results(run_dir), config)
    if not any(outcome.ran for outcome in outcomes):
        out.print("Nothing to do: every stage is up to date.")
    if "export" in complete:
        out.print(f"Training file: {run_dir / 'export' / 'train.jsonl'}", soft_wrap=True)
        stack = "rows" if config.data.format == "rows" else "STACK"
        out.print(f"For your trainer: dealrec export {shlex.quote(str(run_dir))} --to {stack}", soft_wrap=True)
    if config.data.final:
        out.print(
            "This selection is to be shipped: nothing is left to test it on. A run without --final has the verdict.",
            soft_wrap=True,
        )
    if "report" in complete:
        out.print(f"Report: {run_dir / 'report' / 'report.html'}", soft_wrap=True)


def _show_selection(console: Console, run_dir: Path, outcomes: Sequence[Outcome]) -> None:
    facts = next(outcome.manifest.facts for outcome in outcomes if outcome.stage == "select")
    selected = read_table(run_dir / "select" / "selected.parquet").sort(RANK)
    path = run_dir / "select" / "strata.parquet"
    strata = read_table(path) if STRATUM in selected.columns else None
    signals = [name for name in selected.columns if name not in (SAMPLE, RANK, OVERALL, STRATUM, REASON)]
    rows = selected.head(SHOWN_SAMPLES).join(
        read_table(run_dir / "data" / "samples-train.parquet"), on=SAMPLE, how="left", maintain_order="left"
    )
    items = read_table(run_dir / "data" / "items.parquet")
    titles = dict(zip(items[ITEM].to_list(), items[TITLE].to_list(), strict=True))
    among = f" in {facts['strata_in_use']} strata" if strata is not None else f" by {facts['method']}"
    title = (
        f"Selected: {facts['budget']:,} of {facts['samples']:,} samples{in_unit(facts)}, from {facts['pool']:,}"
        f" candidates{among}; the highest overall scores"
    )
    scored = (f">{name}" for name in (*signals, OVERALL))
    table = table_of(">#", "last of the history -> target", *scored, "kept because", title=title)
    for row in rows.iter_rows(named=True):
        shown = " -> ".join(cut(titles[item], TITLE_WIDTH) for item in (*row[HISTORY][-1:], row[TARGET]))
        scores = (f"{row[name]:.2e}" if name == INFLUENCE else number(row[name]) for name in signals)
        table.add_row(str(row[RANK]), shown, *scores, f"{row[OVERALL]:.3f}", _reason(row, strata))
    console.print(table)


def _reason(row: dict[str, Any], strata: pl.DataFrame | None) -> str:
    if strata is None:
        return str(row[REASON])
    stratum = strata.row(by_predicate=pl.col(STRATUM) == row[STRATUM], named=True)
    return f"stratum {row[STRATUM]}: {stratum['kept']} of {stratum['candidates']} kept"


def _show_results(console: Console, results: dict[str, Any], config: Config) -> None:
    from dealrec.reporting.results import against_random

    arms, catalogues = list(results["arms"].values()), list(results["catalogue"].values())
    runs = {arm: len(names) for arm, names in results["runs"].items()}
    over = "users, and seeds where there are several" if max(runs.values()) > 1 else "users"
    title = f"Results per user, mean [{percent(config.evaluate.confidence)} bootstrap interval over {over}]"
    headers = (f">{arm}, mean of {n}" if n > 1 else f">{arm}" for arm, n in runs.items())
    table = table_of("measure", ">users", *headers, title=title)
    for name, estimate in arms[0].items():
        table.add_row(name, str(estimate["n"]), *(_with_interval(metrics[name], metric) for metrics in arms))
    for name in catalogues[0]:
        table.add_row(name, "all", *(metric(values[name]) if name in values else "" for values in catalogues))
    console.print(table)
    measures = results["comparison"]["measures"]
    if not measures:
        return
    tests = [units for units, test in next(iter(measures.values()))["p"].items() if test is not None]
    table = table_of(
        *("measure", ">selected - random", *(f">p ({units})" for units in tests), "verdict: selected is ..."),
        title="Selected against Random, paired by user",
    )
    for name, estimate in measures.items():
        p_values = (number(estimate["p"][units]["p"]) for units in tests)
        table.add_row(name, _with_interval(estimate, difference), *p_values, against_random(estimate["verdict"]))
    console.print(table)
    for note in ("Lower is better for loss, higher for the others.", *results["comparison"]["notes"]):
        console.print(note, style="dim")


def show_fidelity(outcomes: Sequence[Outcome], run_dir: Path, *, as_json: bool) -> None:
    """How well each influence section predicted the risk after retraining."""
    rows = read_table(run_dir / "fidelity" / "fidelity.parquet").sort("share", "own", descending=True)
    facts = outcomes[-1].manifest.facts
    if as_json:
        print_json({"run_dir": str(run_dir), "rows": rows.to_dicts(), "facts": facts})
        return
    out = console()
    title = "Linear datamodelling score [95% interval over subsets], and the most that the noise of retraining allows"
    headers = ("risk", "parameters", "solver", ">share", ">own risk", ">at most", ">test risk", ">at most")
    table = table_of(*headers, ">seeds", ">damping", ">s", title=title)
    for row in rows.iter_rows(named=True):
        table.add_row(
            *(row["risk"], row["parameters"], row["solver"], f"{row['share']:g}"),
            *(cell for risk in ("own", "test") for cell in _prediction(row, risk)),
            "-" if row["stability"] is None else correlation(row["stability"]),
            *("-" if row[name] is None else number(row[name]) for name in ("damping", "seconds")),
        )
    out.print(table)
    out.print("seeds: Spearman correlation of the scores of surrogates from different seeds", style="dim")
    out.print(
        f"Convex toy, each sample left out: Spearman {metric(facts['leave_one_out_spearman'])},"
        f" slope {number(facts['leave_one_out_slope'])}"
    )
    total = sum(outcome.manifest.wall_seconds for outcome in outcomes)
    out.print(f"{seconds(total)} in all; the table: {run_dir / 'fidelity' / 'fidelity.parquet'}", soft_wrap=True)


def show_export(exported: "Exported", *, as_json: bool) -> None:
    """What was written where, and how to train on it."""
    if as_json:
        print_json(asdict(exported))
        return
    if exported.form is None:
        say(f"{exported.samples:,} {exported.stack} of arm {exported.arm}:")
    else:
        say(f"{exported.samples:,} samples of arm {exported.arm} for {exported.stack}, as {exported.form}:")
    for name in exported.files:
        say(exported.folder / name)
    if exported.train is not None:
        say(f"Train with: cd {shlex.quote(str(exported.folder))} && {exported.train}")


def show_report(path: Path, warnings: "Sequence[Note]", *, as_json: bool) -> None:
    """Where the report stands; in JSON also what it warns of."""
    if as_json:
        print_json({"page": str(path), "warnings": [asdict(note) for note in warnings]})
    else:
        from dealrec.reporting.notes import LEFT_OUT

        for note in warnings:
            if note.name == LEFT_OUT:
                say(f"warning: {note.text} {note.remedy}", err=True)
        say(path)


def show_comparison(figures: dict[str, Any], *, as_json: bool) -> None:
    """Where the page on two runs stands; in JSON also its main figures."""
    if as_json:
        print_json(figures)
    else:
        say(figures["page"])


def _prediction(row: dict[str, Any], risk: str) -> tuple[str, str]:
    """How well a risk is predicted, with its interval, and its ceiling."""
    mean, low, high, ceiling = (correlation(row[f"{risk}{end}"]) for end in ("", "_low", "_high", "_ceiling"))
    return f"{mean} [{low}, {high}]", ceiling


def _results(run_dir: Path) -> dict[str, Any]:
    comparison = json.loads((run_dir / "compare" / "comparison.json").read_text())
    arms = comparison.pop("arms")
    parts = {name: {arm: content[key] for arm, content in arms.items()} for name, key in _PARTS.items()}
    return {**parts, "comparison": comparison}


_PARTS = {"runs": "runs", "arms": "metrics", "catalogue": "catalogue"}  # of an arm in comparison.json


def _with_interval(estimate: dict[str, Any], show: Callable[[float], str]) -> str:
    if estimate["low"] is None:
        return f"{show(estimate['mean'])} (all users equal)"
    return f"{show(estimate['mean'])} [{show(estimate['low'])}, {show(estimate['high'])}]"


def _cost(manifest: Manifest | None) -> dict[str, float | int | None]:
    names = ("wall_seconds", "cpu_seconds", "peak_memory_bytes")
    return {name: getattr(manifest, name) if manifest else None for name in names}


def _cost_cells(manifest: Manifest | None) -> tuple[str, str, str]:
    if manifest is None:
        return "", "", ""
    return seconds(manifest.wall_seconds), seconds(manifest.cpu_seconds), memory(manifest.peak_memory_bytes)


def console() -> Console:
    """Of stdout; where that is no terminal wide enough for the tables."""
    shown = PlainConsole()
    return shown if shown.is_terminal else PlainConsole(width=140)


def table_of(*headers: str, title: str | None = None) -> Table:
    """A table; a header that begins with > is aligned to the right."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for header in headers:
        right = header.startswith(">")
        table.add_column(header.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    return table
