"""A comparison as a whole: what it leaves is a page, its results as JSON, and a row a cell."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from dealrec.columns import ARM, LABEL_TOKENS, LOSS, METHOD, REPLICATE, SIZE, TRAINING
from dealrec.comparing.cells import Cell, cells_of, cost_seconds, seconds_per_sample
from dealrec.comparing.learning_rates import Tuned, sentences, tuned, with_rates
from dealrec.comparing.learning_rates import as_json as rates_as_json
from dealrec.comparing.page import write_page
from dealrec.comparing.replicates import labels, replicate_config
from dealrec.comparing.results import Results, Statistics, results_of
from dealrec.comparing.run import run_replicates
from dealrec.comparing.segments import segments_of
from dealrec.comparing.words import sentence
from dealrec.config import Config
from dealrec.config.arms import BASE
from dealrec.engine.manifest import read_manifest
from dealrec.engine.run_directory import read_table, write_table, write_text
from dealrec.engine.stage import Progress
from dealrec.stages.evaluate import measures


@dataclass(frozen=True)
class Outcome:
    """results: of all arms; failures: by arm, why its method selected nothing; run_dir: where all is kept.

    rates: the learning rate of each budget, where several were tried.
    """

    results: Results
    failures: dict[str, str]
    run_dir: Path
    rates: tuple[Tuned, ...] = ()

    @property
    def page(self) -> Path:
        """What a person looks at."""
        return self.run_dir / "comparison.html"


def compare(config: Config, run_dir: Path, *, progress: Progress) -> Outcome:
    """Run what is missing of the comparison, and put the results together.

    Leaves `comparison.json`, `comparison.parquet` (a row a cell) in `run_dir`, and a run directory a replicate.
    """
    folders = run_replicates(config, run_dir, progress=progress)
    rates = tuned(config, run_dir) if config.compare.learning_rates else []
    names = labels(config)
    cells: list[Cell] = []
    costs: dict[str, list[float]] = {}
    failures: dict[str, str] = {}
    for number, folder in enumerate(folders):
        settings = with_rates(replicate_config(config, number), rates)
        own = list(cells_of(settings, folder, names))
        per_sample = seconds_per_sample(own, folder)
        for arm in dict.fromkeys(cell.arm for cell in own):
            costs.setdefault(arm, []).append(cost_seconds(settings, folder, arm) / per_sample)
        manifest = read_manifest(folder / "select")
        failures |= manifest.facts.get("failures", {}) if manifest else {}
        cells += own
    results = results_of(
        cells,
        base=[read_table(folder / "evaluate" / BASE / "per_user.parquet") for folder in folders],
        measures=measures(config.evaluate),
        costs={arm: sum(values) / len(values) for arm, values in costs.items()},
        segments=segments_of(folders[0]),
        statistics=Statistics(config.evaluate.confidence, config.evaluate.resamples, config.seed),
    )
    outcome = Outcome(results, failures, run_dir, tuple(rates))
    _write(outcome, cells, config)
    write_page(
        results,
        outcome.page,
        failures=failures,
        confidence=config.evaluate.confidence,
        warm_starts=config.compare.warm_starts,
        rates=sentences(rates),
    )
    return outcome


def _write(outcome: Outcome, cells: list[Cell], config: Config) -> None:
    write_text(outcome.run_dir / "comparison.json", json.dumps(as_json(outcome), indent=2) + "\n")
    write_table(outcome.run_dir / "comparison.parquet", _rows(cells, config), key=[ARM, REPLICATE, TRAINING])


def _rows(cells: list[Cell], config: Config) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for cell in cells:
        users = cell.users()
        means = {name: users[name].mean() for name in measures(config.evaluate)}
        valid = {"valid_loss": cell.valid()[LOSS].mean()} if cell.has_valid() else {}
        keys = {ARM: cell.arm, METHOD: cell.method, REPLICATE: cell.replicate, TRAINING: cell.training}
        rows.append({**keys, SIZE: cell.size, LABEL_TOKENS: cell.label_tokens, **means, **valid})
    return pl.DataFrame(rows)


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Content of `comparison.json`."""
    results = outcome.results
    arms = [{**asdict(arm), "verdict": sentence(arm, results)} for arm in results.arms]
    return {
        "format": 1,
        "users": results.users,
        "replicates": results.replicates,
        "arms": arms,
        "base": results.base,
        "curve": [{"size": size, "loss": loss} for size, loss in results.curve],
        "segments": dict(results.segments),
        "failures": outcome.failures,
        **({"learning_rates": rates_as_json(list(outcome.rates))} if outcome.rates else {}),
    }
