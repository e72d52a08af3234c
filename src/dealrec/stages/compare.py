"""Comparison: the means of all arms, the selected against the random ones, and in words what that covers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dealrec.columns import LOWER_IS_BETTER, USER
from dealrec.config import Config
from dealrec.config.arms import ARMS, BASE, RANDOM, SELECTED, FineTuning, fine_tunings, random_arms, selected_arms
from dealrec.engine.run_directory import read_table, write_table
from dealrec.formats import listed
from dealrec.stages.context import Context, Stage
from dealrec.stages.evaluate import measures

if TYPE_CHECKING:
    from dealrec.evaluation import Comparison

ONE_DRAW = "one draw"  # in the place of a verdict: an interval over users alone says nothing of another selection
Runs = list[list[str]]  # folders, [arms][trainings]


def run(context: Context) -> None:
    """Write `comparison.json`: the mean of each kind of arm, and selected - random with what can be said of it.

    arms: of base, selected and random the folders (`runs`), `metrics` (means over arms, trainings and users with
    intervals over those of which there are several) and `catalogue` (means over the runs). measures: of each the
    difference, its verdict and the p-values `users` and `arms`; empty without random arms. notes: what all this
    covers, and which test could not have been significant. `comparison.parquet` has the mean over users of each
    measure of each run, with its interval over users.
    """
    from dealrec.evaluation import bootstrap_crossed, compare_arms

    config, settings = context.config, context.config.evaluate
    options = _options(config)
    kinds = runs_of_arms(config)
    tables = {
        name: read_table(context.input(f"evaluate/{name}/per_user.parquet")).sort(USER)
        for runs in kinds.values()
        for name in _run_names(runs)
    }
    values = {
        kind: {name: measure_values(tables, runs, name) for name in measures(settings)} for kind, runs in kinds.items()
    }
    comparisons: dict[str, Comparison] = {}
    for name in measures(settings) if RANDOM in kinds else []:
        selected, random = values[SELECTED][name], values[RANDOM][name]
        comparisons[name] = compare_arms(selected, random, **options, lower_is_better=name in LOWER_IS_BETTER)
    content = {
        "arms": {
            kind: {
                "runs": _run_names(runs),
                "metrics": {name: asdict(bootstrap_crossed(array, **options)) for name, array in values[kind].items()},
                "catalogue": _mean_catalogue(context, _run_names(runs)),
            }
            for kind, runs in kinds.items()
        },
        "difference": "selected - random",
        "selections": config.select.selections,
        "random_arms": config.select.random_arms,
        "training_seeds": config.finetune.seeds,
        "measures": {name: _as_row(comparison) for name, comparison in comparisons.items()},
        "notes": notes(config, comparisons) if comparisons else [],
    }
    (context.out / "comparison.json").write_text(json.dumps(content, indent=2) + "\n")
    write_table(context.out / "comparison.parquet", pl.DataFrame(_rows(config, tables)), key=["run", "measure"])


def _options(config: Config) -> dict[str, Any]:
    """Of every bootstrap and test."""
    return {
        "confidence": config.evaluate.confidence,
        "resamples": config.evaluate.resamples,
        "seed": config.seed,
    }


def _rows(config: Config, tables: dict[str, pl.DataFrame]) -> Iterator[dict[str, Any]]:
    from dealrec.evaluation import bootstrap_mean

    for run_name, table in tables.items():
        for name in measures(config.evaluate):
            values = table[name].drop_nulls().to_numpy().astype(np.float64)
            interval = asdict(bootstrap_mean(values, **_options(config)))
            del interval["covers"]  # users, of all of them
            yield {"run": run_name, "measure": name, **interval}


def runs_of_arms(config: Config) -> dict[str, Runs]:
    """The folders of each kind of arm that there is; base stands alone."""
    of_arm: dict[str, list[FineTuning]] = {}
    for tuning in fine_tunings(config):
        of_arm.setdefault(tuning.arm, []).append(tuning)
    arms = {SELECTED: list(selected_arms(config)), RANDOM: random_arms(config)}
    trained = {
        kind: [[tuning.name for tuning in of_arm[arm]] for arm in names] for kind, names in arms.items() if names
    }
    return {BASE: [[BASE]], **trained}


def measure_values(tables: dict[str, pl.DataFrame], runs: Runs, measure: str) -> NDArray[np.float64]:
    """A measure's values, [arms, trainings, users], of the users that it was measured for."""
    values = np.array([[tables[name][measure].cast(pl.Float64).to_numpy() for name in arm] for arm in runs])
    return values[:, :, ~np.isnan(values).all(axis=(0, 1))]


def notes(config: Config, comparisons: dict[str, Comparison]) -> list[str]:
    """What intervals and tests cover, what they leave out, and which could not have shown anything."""
    level = 1 - config.evaluate.confidence
    texts = [_covered(comparisons), _not_varied(config), _varied(config)]
    texts.append("p (users) flips the signs of the users' differences; it speaks of other users, not of other seeds.")
    powerless = [name for name, comparison in comparisons.items() if comparison.users.least > level * (1 + 1e-9)]
    if powerless:
        which = "any measure" if len(powerless) == len(comparisons) else listed(powerless)
        texts.append(f"Too few users differ for p (users) to be as low as {level:.2g} on {which}.")
    conflicting = [
        name
        for name, comparison in comparisons.items()
        if comparison.verdict != "not distinguishable" and comparison.users.p > level
    ]
    if conflicting:
        texts.append(f"On {listed(conflicting)} interval and p (users) disagree: take the difference for not shown.")
    if len(comparisons) > 1:
        texts.append(
            f"There are {len(comparisons)} measures, and each is looked at by itself: {level:.0%} of those that do not"
            " differ look as if they did."
        )
    arms = next(iter(comparisons.values())).arms
    if arms is not None:
        ours, theirs = config.select.selections, config.select.random_arms
        texts.append(
            f"p (arms) asks whether the selected arms could be any {ours} of the {ours + theirs} arms, each counted"
            " once, as the mean of its trainings and users; it speaks of other selections."
        )
        if arms.least > level * (1 + 1e-9):
            texts.append(
                f"With so few arms it cannot be below {arms.least:.2g}: by it no difference could be significant at"
                f" {level:.2g}."
            )
    return [text for text in texts if text]


def _covered(comparisons: dict[str, Comparison]) -> str:
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, comparison in comparisons.items():
        groups.setdefault(comparison.difference.covers, []).append(name)
    parts = []
    for covers, names in groups.items():
        on = f" (on {listed(names)})" if len(groups) > 1 else ""
        alone = " alone" if len(covers) == 1 else ""
        parts.append(f"{listed(covers)}{alone}{on}" if covers else f"nothing{on}, as there is one user")
    return f"The intervals of the differences, and so the verdicts, cover {'; '.join(parts)}."


def _not_varied(config: Config) -> str:
    """What there is one of, or what stands for all of its kind."""
    selections, arms = config.select.selections, config.select.random_arms
    fixed = ["one selection"] if selections == 1 else []
    if selections != arms or arms == 1:
        fixed.append("one random arm" if arms == 1 else f"the mean of {arms} random arms")
    if config.finetune.seeds == 1:
        fixed.append("one training of each arm")
    if not fixed:
        return ""
    return f"They hold for {listed(fixed)}: with other seeds the difference may change by more than its interval."


def _varied(config: Config) -> str:
    """What the seeds change, and what they do not."""
    parts = []
    if config.select.selections > 1:
        parts.append("a selection seed draws anew from the same scores and candidates")
    if config.finetune.seeds > 1:
        parts.append("a training seed changes the order of the samples and dropout, not the weights it starts from")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _as_row(comparison: Comparison) -> dict[str, Any]:
    from dealrec.evaluation.significance import FACTORS

    return {
        **asdict(comparison.difference),
        "verdict": comparison.verdict if FACTORS[0] in comparison.difference.covers else ONE_DRAW,
        "p": {"users": asdict(comparison.users), "arms": None if comparison.arms is None else asdict(comparison.arms)},
    }


def _mean_catalogue(context: Context, runs: Sequence[str]) -> dict[str, float]:
    """The mean over the runs of what they all have."""
    files = [context.input(f"evaluate/{name}/metrics.json") for name in runs]
    catalogues = [json.loads(file.read_text())["catalogue"] for file in files]
    names = [name for name in catalogues[0] if all(name in catalogue for catalogue in catalogues)]
    return {name: sum(catalogue[name] for catalogue in catalogues) / len(catalogues) for name in names}


def _run_names(runs: Runs) -> list[str]:
    return [name for arm in runs for name in arm]


STAGE = Stage(
    "compare",
    2,
    run,
    ("evaluate",),
    ("seed", "evaluate.ks", "evaluate.log_rank", "evaluate.confidence", "evaluate.resamples", "finetune.seeds", *ARMS),
)
