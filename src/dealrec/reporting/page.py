"""The page: what stands in it, and in which order."""

from pathlib import Path
from typing import Any

from dealrec.columns import STRATUM
from dealrec.config import Config
from dealrec.engine.hashes import file_hash
from dealrec.engine.manifest import stored_manifest, write_manifest
from dealrec.engine.run_directory import Run, write_text
from dealrec.engine.runner import opened
from dealrec.formats import in_unit, percent
from dealrec.reporting import costs, coverage, failures, notes, results, scores
from dealrec.reporting.notes import Note
from dealrec.reporting.provenance import provenance
from dealrec.reporting.table import samples_table
from dealrec.reporting.templates import render

PAGE = "report.html"


def write_report(run: Run[Config], path: Path) -> list[Note]:
    """Write the report of a run to `path`: one HTML page that needs nothing else; return its warnings.

    Every stage after `data` may be missing, or be left over from other settings; the page then does without it.
    The same run gives the same page.
    """
    page = content(run)
    write_text(path, render("page.html.jinja", page))
    warnings: list[Note] = page["warnings"]
    return warnings


def rewrite_report(run: Run[Config], path: Path | None = None) -> tuple[Path, list[Note]]:
    """Write the report of a run again; return where it stands and its warnings.

    path None: over the page of the report stage, or, where that has not run, to `report.html` in the run directory.
    Raises RunDirectoryError for a folder that is in use.
    """
    folder = run.folder / "report"
    manifest = stored_manifest(folder)
    if path is not None or manifest is None:
        path = path or run.folder / PAGE
        return path, write_report(run, path)
    with opened(run.folder):
        warnings = write_report(run, folder / PAGE)
        manifest.outputs[PAGE] = file_hash(folder / PAGE)
        manifest.sizes[PAGE] = (folder / PAGE).stat().st_size
        write_manifest(folder, manifest)
    return folder / PAGE, warnings


def content(run: Run[Config]) -> dict[str, Any]:
    """Everything that the template shows."""
    samples = run.table("data/samples-train.parquet")
    groups = coverage.sample_groups(run, samples)
    reach, spreads = coverage.reach(groups), coverage.spreads(run, groups)
    pool = run.table("select/candidates.parquet") if run.has("select") else None
    evaluation, select = results.results(run), run.config.select
    balance = None
    if pool is not None and STRATUM in pool.columns:
        balance = failures.score_balance(pool, effort_weight=select.effort_weight)
    ways_to_fail = [
        *failures.effort_dominates(run, balance),
        *failures.uncovered(run, spreads, reach),
        *failures.influence_inaccurate(run),
    ]
    warnings = notes.warnings(run, samples, evaluation, ways_to_fail)
    return {
        "verdict": evaluation.headline if evaluation else None,
        "headline": headline(run, len(samples)),
        "missing": [stage for stage in run.stages if not run.has(stage)],
        "results": evaluation,
        "warnings": warnings,
        "worries": notes.summary(warnings),
        "diagnostics": notes.diagnostics(run, failures.figures(run, balance)),
        "costs": costs.lines(run),
        "share": costs.share(run),
        "figures": scores.figures(run, pool),
        "reach": reach,
        "spreads": spreads,
        "samples": samples_table(run, samples, pool),
        "selections": select.selections,
        "provenance": provenance(run),
    }


def headline(run: Run[Config], samples: int) -> str:
    """What was selected of how many."""
    if run.has("select"):
        facts = run.facts("select")
        final = "Final selection, of all interactions: s" if run.config.data.final else "S"
        return (
            f"{final}elected {facts['budget']:,} of {facts['samples']:,} training samples"
            f" ({percent(facts['budget'] / facts['samples'])}){in_unit(facts)}, from {facts['pool']:,} candidates."
        )
    return f"Nothing is selected yet of {samples:,} training samples."
