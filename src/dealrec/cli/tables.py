"""What a person sees on stdout at the end of a command: tables, or JSON on request."""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dealrec.cli.json_output import print_json
from dealrec.columns import EFFORT, HISTORY, INFLUENCE, ITEM, OVERALL, RANK, SAMPLE, STRATUM, TARGET, TITLE
from dealrec.config import Config
from dealrec.engine.manifest import Manifest
from dealrec.engine.run_directory import read_table
from dealrec.engine.runner import Outcome, State
from dealrec.engine.stage import Stage

if TYPE_CHECKING:
    from dealrec.estimates import Estimate, Estimates
    from dealrec.exporting import Exported
    from dealrec.reporting.notes import Note

SHOWN_SAMPLES = 8


def show_states(found: Sequence[tuple[Stage, State, Manifest | None]], *, as_json: bool) -> None:
    """The stages of a run directory."""
    if as_json:
        rows = [{"stage": stage.name, "state": state, **_cost(manifest)} for stage, state, manifest in found]
        print_json(rows)
        return
    table = _table("stage", "state", ">time", ">CPU time", ">peak memory")
    for stage, state, manifest in found:
        table.add_row(stage.name, state, *_cost_cells(manifest))
    _console().print(table)


def show_estimates(found: "Estimates", run_dir: Path, *, as_json: bool) -> None:
    """What a run would do and cost."""
    all_of_it = {name: getattr(found, name) for name in ("seconds", "at_most", "peak_memory_bytes")}
    if as_json:
        about = {"run_dir": str(run_dir), **asdict(found), "total": all_of_it}
        print_json(about)
        return
    console = _console()
    table = _table("stage", "", "what it does", ">time", ">peak memory", title="What a run would do, and its cost")
    for one in found.stages:
        figures = ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in one.figures.items())
        memory = _memory(one.peak_memory_bytes)
        table.add_row(one.stage, one.plan, figures, _expected_time(one), f"({memory})" if one.past else memory)
    table.add_row("all", "", "", _time(found.seconds, found.at_most), _memory(found.peak_memory_bytes), style="bold")
    console.print(table)
    todo = [one.stage for one in found.to_do]
    if "export" in todo[:-1]:
        file = found.until("export")
        time = _time(file.seconds, file.at_most)
        console.print(f"The training file, up to export: {time}. With --until export a run ends there.", soft_wrap=True)
    for one in found.stages:
        for note in one.notes:
            console.print(f"{one.stage}: {note}", style="dim")
    console.print(
        f"Measured on small pieces, on {found.device} with {found.threads} threads, in {_seconds(found.probe_seconds)};"
        f" what else the machine does, now or then, makes the run shorter or longer. Nothing was written to {run_dir}.",
        style="dim",
        soft_wrap=True,
    )


def _expected_time(one: "Estimate") -> str:
    if one.seconds is None:
        return "-"
    return f"(took {_seconds(one.seconds)})" if one.past else _time(one.seconds, one.at_most)


def _time(seconds: float, at_most: float | None) -> str:
    if at_most is None or round(at_most, 1) == round(seconds, 1) == 0:
        return _seconds(seconds)
    most = f"up to about {_seconds(at_most)}"
    return most if at_most <= seconds else f"{_seconds(seconds)}, {most}"


def _memory(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:,.0f} MiB"


def show_outcomes(outcomes: Sequence[Outcome], run_dir: Path, config: Config, *, as_json: bool) -> None:
    """What a run did, what it selected and why, and what came of it."""
    ran = [outcome.stage for outcome in outcomes if outcome.ran]
    done = {outcome.stage for outcome in outcomes}
    if as_json:
        stages = [{"stage": o.stage, "ran": o.ran, **_cost(o.manifest), "facts": o.manifest.facts} for o in outcomes]
        results = _results(run_dir) if "compare" in done else {}
        print_json({"run_dir": str(run_dir), "stages": stages, "results": results})
        return
    console = _console()
    if "select" in done:
        _show_selection(console, run_dir, outcomes)
    table = _table("stage", "", ">time", ">CPU time", ">peak memory", title="Stages")
    for outcome in outcomes:
        table.add_row(outcome.stage, "ran" if outcome.ran else "up to date", *_cost_cells(outcome.manifest))
    total = sum(outcome.manifest.wall_seconds for outcome in outcomes)
    table.add_row("all", "", _seconds(total), _seconds(sum(o.manifest.cpu_seconds for o in outcomes)), "")
    console.print(table)
    if "compare" in done:
        _show_results(console, _results(run_dir), config)
    if not ran:
        console.print("Nothing to do: every stage is up to date.")
    if "export" in done:
        console.print(f"Training file: {run_dir / 'export' / 'train.jsonl'}", soft_wrap=True)
        console.print(f"For your trainer: dealrec export {shlex.quote(str(run_dir))} --to STACK", soft_wrap=True)
    if "report" in done:
        console.print(f"Report: {run_dir / 'report' / 'report.html'}", soft_wrap=True)


def _show_selection(console: Console, run_dir: Path, outcomes: Sequence[Outcome]) -> None:
    facts = next(outcome.manifest.facts for outcome in outcomes if outcome.stage == "select")
    selected = read_table(run_dir / "select" / "selected.parquet").sort(RANK)
    strata = read_table(run_dir / "select" / "strata.parquet")
    shown = selected.head(SHOWN_SAMPLES).join(
        read_table(run_dir / "data" / "samples-train.parquet"), on=SAMPLE, how="left", maintain_order="left"
    )
    items = read_table(run_dir / "data" / "items.parquet")
    titles = dict(zip(items[ITEM].to_list(), items[TITLE].to_list(), strict=True))
    title = (
        f"Selected: {facts['budget']:,} of {facts['samples']:,} samples, from {facts['pool']:,} candidates in"
        f" {facts['strata_in_use']} strata; the highest overall scores"
    )
    table = _table(
        ">#", "last of the history -> target", ">influence", ">effort", ">overall", "kept because", title=title
    )
    for row in shown.iter_rows(named=True):
        stratum = strata.row(by_predicate=pl.col(STRATUM) == row[STRATUM], named=True)
        arrow = f"{_short(titles[row[HISTORY][-1]])} -> {_short(titles[row[TARGET]])}"
        reason = f"stratum {row[STRATUM]}: {stratum['kept']} of {stratum['candidates']} kept"
        scores = (f"{row[INFLUENCE]:.2e}", f"{row[EFFORT]:.3g}", f"{row[OVERALL]:.3f}")
        table.add_row(str(row[RANK]), Text(arrow), *scores, reason)
    console.print(table)


def _show_results(console: Console, results: dict[str, Any], config: Config) -> None:
    names = list(next(iter(results["arms"].values())))
    of = {arm: f"{arm}, mean of {len(runs)}" if len(runs) > 1 else arm for arm, runs in results["runs"].items()}
    over = "users" if len(of) == sum(map(len, results["runs"].values())) else "users, and seeds where there are several"
    title = f"Results per user, mean [{config.evaluate.confidence:.0%} bootstrap interval over {over}]"
    table = _table("measure", ">users", *(f">{name}" for name in of.values()), title=title)
    for name in names:
        users = next(iter(results["arms"].values()))[name]["n"]
        table.add_row(name, str(users), *(_interval(metrics[name]) for metrics in results["arms"].values()))
    everyone = list(results["catalogue"].values())
    for name in everyone[0]:
        table.add_row(name, "all", *(f"{found[name]:.4f}" if name in found else "" for found in everyone))
    console.print(table)
    measures = results["comparison"]["measures"]
    if not measures:
        return
    tests = [of for of, test in next(iter(measures.values()))["p"].items() if test is not None]
    table = _table(
        *("measure", ">selected - random", *(f">p ({of})" for of in tests), "verdict: selected is ..."),
        title="Selected against Random, paired by user",
    )
    for name, found in measures.items():
        shown = (f"{found['p'][of]['p']:.3g}" for of in tests)
        table.add_row(name, _interval(found), *shown, found["verdict"] + _than(found["verdict"]))
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
    console = _console()
    title = "Linear datamodelling score [95% interval over subsets], and the most that the noise of retraining allows"
    headers = ("risk", "parameters", "solver", ">share", ">own risk", ">at most", ">test risk", ">at most")
    table = _table(*headers, ">seeds", ">damping", ">s", title=title)
    for row in rows.iter_rows(named=True):
        table.add_row(
            *(row["risk"], row["parameters"], row["solver"], f"{row['share']:g}"),
            *(cell for on in ("own", "test") for cell in (_score(row, on), f"{row[f'{on}_ceiling']:.2f}")),
            *(_number(row["stability"], ".2f"), _number(row["damping"], ".2g"), _number(row["seconds"], ".0f")),
        )
    console.print(table)
    console.print("seeds: Spearman correlation of the scores of surrogates from different seeds", style="dim")
    console.print(
        f"Convex toy, each sample left out: Spearman {facts['leave_one_out_spearman']:.4f},"
        f" slope {facts['leave_one_out_slope']:.3f}"
    )
    total = sum(outcome.manifest.wall_seconds for outcome in outcomes)
    console.print(f"{_seconds(total)} in all; the table: {run_dir / 'fidelity' / 'fidelity.parquet'}", soft_wrap=True)


def show_export(exported: "Exported", *, as_json: bool) -> None:
    """What was written where, and how to train on it."""
    if as_json:
        print_json(asdict(exported))
        return
    print(f"{exported.samples:,} samples of arm {exported.arm} for {exported.stack}, as {exported.form}:")
    for name in exported.files:
        print(exported.folder / name)
    if exported.train is not None:
        print(f"Train with: cd {shlex.quote(str(exported.folder))} && {exported.train}")


def show_report(path: Path, warnings: "Sequence[Note]", *, as_json: bool) -> None:
    """Where the report stands; in JSON also what it warns of."""
    if as_json:
        print_json({"page": str(path), "warnings": [asdict(note) for note in warnings]})
    else:
        from dealrec.reporting.notes import LEFT_OUT

        for note in warnings:
            if note.name == LEFT_OUT:
                print(f"warning: {note.text} {note.remedy}", file=sys.stderr)
        print(path)


def show_comparison(found: dict[str, Any], *, as_json: bool) -> None:
    """Where the page on two runs stands; in JSON also its main figures."""
    if as_json:
        print_json(found)
    else:
        print(found["page"])


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _score(row: dict[str, Any], on: str) -> str:
    return f"{row[on]:.2f} [{row[f'{on}_low']:.2f}, {row[f'{on}_high']:.2f}]"


def _than(verdict: str) -> str:
    return " from Random" if verdict.startswith("not") else " than Random"


def _results(run_dir: Path) -> dict[str, Any]:
    comparison = json.loads((run_dir / "compare" / "comparison.json").read_text())
    found = comparison.pop("arms")
    parts = {name: {arm: content[key] for arm, content in found.items()} for name, key in _PARTS.items()}
    return {**parts, "comparison": comparison}


_PARTS = {"runs": "runs", "arms": "metrics", "catalogue": "catalogue"}  # of an arm in comparison.json


def _interval(found: dict[str, Any]) -> str:
    if found["low"] is None:
        return f"{found['mean']:.4f} (all users equal)"
    return f"{found['mean']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"


def _cost(manifest: Manifest | None) -> dict[str, float | int | None]:
    names = ("wall_seconds", "cpu_seconds", "peak_memory_bytes")
    return {name: getattr(manifest, name) if manifest else None for name in names}


def _cost_cells(manifest: Manifest | None) -> tuple[str, str, str]:
    if manifest is None:
        return "", "", ""
    return _seconds(manifest.wall_seconds), _seconds(manifest.cpu_seconds), _memory(manifest.peak_memory_bytes)


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _short(title: str, width: int = 28) -> str:
    return title if len(title) <= width else title[: width - 1] + "…"


def _console() -> Console:
    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, emoji=False, width=140)


def _table(*headers: str, title: str | None = None) -> Table:
    """A table; a header that begins with > is aligned to the right."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for header in headers:
        right = header.startswith(">")
        table.add_column(header.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    return table
