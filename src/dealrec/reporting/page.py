"""The page: what stands in it, and in which order."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import polars as pl

from dealrec import config_file
from dealrec.columns import EFFORT, HISTORY, INFLUENCE, OVERALL, RANK, SAMPLE, STRATUM, TARGET, USER
from dealrec.config import Config
from dealrec.data import sources
from dealrec.pipeline.tables import read_catalogue, read_samples
from dealrec.reporting import costs, coverage, notes, results, scores
from dealrec.reporting.numbers import Unit, number, percent
from dealrec.reporting.runs import STAGES, Run, open_run

SHOWN_SAMPLES = 200
SHOWN_HISTORY = 3
TITLE_WIDTH = 60


def write_report(run_dir: Path, config: Config, path: Path) -> None:
    """Write the report of a run to `path`: one HTML page that needs nothing else, neither network nor scripts.

    Every stage after `data` may be missing, or be left over from other settings; the page then does without it.
    The same run gives the same page. Raises RunDirectoryError where there is nothing to report.
    """
    run = open_run(run_dir, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_template().render(content(run)), encoding="utf-8")


def content(run: Run) -> dict[str, Any]:
    """Everything that the template shows."""
    samples = read_samples(run.folder / "data" / "samples-train.parquet")
    found = coverage.groups(run, samples)
    return {
        "headline": headline(run, len(samples)),
        "missing": [stage for stage in STAGES if not run.has(stage)],
        "results": results.results(run),
        "warnings": notes.warnings(run),
        "diagnostics": notes.diagnostics(run),
        "costs": costs.lines(run),
        "share": costs.share(run),
        "figures": scores.figures(run),
        "reach": coverage.reach(found),
        "spreads": coverage.spreads(run, found),
        "chosen": chosen(run, samples),
        "repeat": repeat(run),
    }


def headline(run: Run, samples: int) -> str:
    """What was selected of how many."""
    if run.has("select"):
        facts = run.facts("select")
        return (
            f"Selected {facts['budget']:,} of {facts['samples']:,} training samples"
            f" ({percent(facts['budget'] / facts['samples'])}), from {facts['pool']:,} candidates whose effort was"
            " scored."
        )
    return f"Nothing is selected yet of {samples:,} training samples."


@dataclass(frozen=True)
class Chosen:
    """The selected samples, the first `len(rows)` of `total` by rank, with scores in the unit of the exponents."""

    total: int
    exponents: dict[str, int]
    rows: list[dict[str, Any]]


def chosen(run: Run, samples: pl.DataFrame) -> Chosen | None:
    """The table of the selected samples; None if there are none yet."""
    if not run.has("select"):
        return None
    selected = run.table("select/selected.parquet").sort(RANK)
    strata = run.table("select/strata.parquet")
    units = {name: Unit.of(selected[name]) for name in (INFLUENCE, EFFORT, OVERALL)}
    titles = read_catalogue(run.folder / "data" / "items.parquet").titles
    shown = selected.head(SHOWN_SAMPLES).join(samples, on=SAMPLE, how="left", maintain_order="left")
    shown = shown.join(strata, on=STRATUM, how="left", maintain_order="left")
    rows = [
        {
            "rank": row[RANK],
            "user": str(row[USER]),
            "history": [titles.get(item, str(item)) for item in row[HISTORY][-SHOWN_HISTORY:]],
            "earlier": max(0, len(row[HISTORY]) - SHOWN_HISTORY),
            "target": titles.get(row[TARGET], str(row[TARGET])),
            "scores": [unit.show(row[name]) for name, unit in units.items()],
            "stratum": f"{row[STRATUM]}: {row['kept']} of {row['candidates']} kept",
        }
        for row in shown.iter_rows(named=True)
    ]
    return Chosen(len(selected), {name: unit.exponent for name, unit in units.items()}, rows)


def repeat(run: Run) -> dict[str, Any]:
    """What is needed to get the same again."""
    made = run.manifests
    return {
        "seed": run.config.seed,
        "settings": config_file.commented(run.config),
        "libraries": _agreed({stage: manifest.libraries for stage, manifest in made.items()}),
        "machine": _agreed({stage: {"threads": str(m.threads), "device": m.device} for stage, m in made.items()}),
        "inputs": [*_data_inputs(run), *_llm_inputs(run)],
        "outputs": [
            (f"{stage}/{name}", made[stage].outputs[name])
            for stage, name in (("select", "selected.parquet"), ("export", "train.jsonl"))
            if stage in made and name in made[stage].outputs
        ],
    }


def _agreed(said: dict[str, dict[str, str]]) -> list[tuple[str, str]]:
    """Each name with its value, or where the stages differ with the stages of each value."""
    found: dict[str, dict[str, list[str]]] = {}
    for stage, values in said.items():
        for name, value in values.items():
            found.setdefault(name, {}).setdefault(value, []).append(stage)
    return [
        (name, next(iter(by)) if len(by) == 1 else "; ".join(f"{value} ({', '.join(at)})" for value, at in by.items()))
        for name, by in found.items()
    ]


def _data_inputs(run: Run) -> list[tuple[str, str]]:
    digests = _outside(run, "data")
    files = [str(file) for file in sources.files(run.config.data)]
    names = files if len(files) == len(digests) else [f"data file {place + 1}" for place in range(len(digests))]
    return list(zip(names, digests, strict=True))


def _llm_inputs(run: Run) -> list[tuple[str, str]]:
    digests = _outside(run, "effort")
    config = run.config
    name = f"LLM {config.llm.model}" if config.recommender == "bigrec" else f"text encoder {config.tiger.text_encoder}"
    adapter = f" and adapter {config.llm.adapter}" if config.recommender == "bigrec" and config.llm.adapter else ""
    return [(f"{name}{adapter}, file {place + 1}", digest) for place, digest in enumerate(digests)]


def _outside(run: Run, stage: str) -> list[str]:
    inputs = run.manifests[stage].inputs if stage in run.manifests else {}
    return [digest for name, digest in inputs.items() if name.startswith("outside/")]


def _template() -> jinja2.Template:
    source = resources.files("dealrec.reporting").joinpath("page.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "number": number, "short": _short}
    return environment.from_string(source)


def _short(text: str) -> str:
    return text if len(text) <= TITLE_WIDTH else text[: TITLE_WIDTH - 1] + "\u2026"
