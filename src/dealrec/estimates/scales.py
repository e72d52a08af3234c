"""What the cost of each stage grows with: the table, and how much of each the settings and the data ask for."""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatch
from typing import Any

from dealrec.config import Config
from dealrec.config.arms import BASE, arms, fine_tunings
from dealrec.estimates.scaling import Axis
from dealrec.selection import budget_count
from dealrec.stages.context import Stage

UNITS, WARM, TITLES, POOL = (
    "units",
    "warm samples",
    "titles",
    "candidates",
)  # of the data, which small runs have fewer of

# Conjugate gradients took 8 to 26 iterations on MovieLens, Games and made-up data, with the default damping and tol.
ITERATIONS = 15
LEAST_TITLES = 64
SAMPLES = 8  # that a small fine-tuning has, at most

# What each stage's cost grows with; a setting's name is a pattern for one of the stage's own. A stage that is not here
# takes as long as its small run.
SCALES: Mapping[str, tuple[Axis, ...]] = {
    "surrogate": (Axis(UNITS, 256, 768, kept=True), Axis("surrogate.max_epochs", per=UNITS)),
    "influence": (
        Axis(UNITS, 32, 96, kept=True),
        Axis("influence.solver.max_iter", 1, 3, per=UNITS),
        Axis("influence.solver.rank", 1, 2, per=UNITS),
        Axis("influence.solver.depth", 1, 8),
    ),
    "warmstart": (
        Axis(TITLES, LEAST_TITLES, 256),
        Axis(WARM, 16, 64, kept=True),
        Axis("*epochs", per=WARM),
        Axis("*validation_samples", 1, 16),
    ),
    **dict.fromkeys(
        ("surrogate_loss", "surrogate_loss_drop", "surrogate_error", "surrogate_state"), (Axis(UNITS, 256, 768),)
    ),
    **dict.fromkeys(("loss", "effort"), (Axis(POOL, 2, SAMPLES),)),
    **dict.fromkeys(
        ("loss_drop", "alignment"),
        (Axis(POOL, 2, SAMPLES, kept=True), Axis("loss_drop.validation_samples", 1, SAMPLES)),
    ),
    "finetune": (Axis("finetune.epochs"), Axis("finetune.validation_samples", 1, 8)),
    "evaluate": (
        Axis(TITLES, LEAST_TITLES, 256, once=True),
        Axis("evaluate.loss_users", 2, 16),
        Axis("evaluate.ranking_users", 1, 8),
    ),
}
# Of those that do the same for each arm: how many arms the smallest run has.
ARMS = {"finetune": 1, "evaluate": 2}


def settings_of(config: Config) -> dict[str, Any]:
    """Every setting by its dotted name; none of the recommenders that the run is not about."""

    def leaves(section: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in section.items():
            yield from leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]

    return dict(leaves(config.model_dump(exclude=set(config.unread_sections())), ""))


def axes_of(stage: Stage, config: Config, counts: Mapping[str, int], *, shards: Collection[str] = ()) -> Iterator[Axis]:
    """The axes of a stage that there are in a run, a pattern's one after the other.

    counts: of the data. shards: what an interrupted run of the stage has left.
    """
    settings = settings_of(config)
    for axis in SCALES.get(stage.name, ()):
        if axis.name == POOL:
            yield replace(axis, **_candidates(stage, config, counts, shards))
            continue
        if axis.name in counts:
            drawn = settings.get("warmstart.samples") if axis.name == WARM else None
            count = min(counts[axis.name], drawn or counts[axis.name])
            yield replace(axis, limit=count, figures={axis.name: count})
            continue
        for name in settings:
            section, _, leaf = name.rpartition(".")
            unused = leaf == "validation_samples" and settings.get(f"{section}.patience", ...) is None
            own = any(f"{name}.".startswith(f"{part}.") for part in stage.settings)
            if own and fnmatch(name, axis.name) and not unused:
                yield replace(axis, name=name, **_amount(name, config, settings, counts))


def _amount(name: str, config: Config, settings: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
    """How much of a setting's axis there is in the run, as `Axis` takes it."""
    value, (section, _, leaf) = settings[name], name.rpartition(".")
    match leaf:
        case "epochs" | "max_epochs":
            samples = budget_count(config.select.budget, counts[UNITS]) / small_budget(config, counts)
            total = value * (samples if section == "finetune" else 1.0)
            amount = {"limit": math.ceil(total), "total": total}
            if settings.get(f"{section}.patience") is None or not counts["valid"]:
                return {"figures": {"epochs": value}, **amount}
            note = f"all {value:,} epochs are counted; early stopping ({section}.patience) may end it sooner"
            return {"figures": {"epochs_at_most": value}, **amount, "most": total, "note": note}
        case "validation_samples":
            drawn = min(value, counts["valid"])
            epochs = settings.get(f"{section}.epochs", settings.get(f"{section}.max_epochs"))
            return {"figures": {"validated_per_epoch": drawn}, "limit": drawn, "total": drawn * epochs}
        case "loss_users" | "ranking_users":
            users = counts["test"] if value is None else min(value, counts["test"])
            return {"figures": {leaf: users}, "limit": users}
        case "depth":
            steps = value * settings[f"{section}.repeats"]
            return {"figures": {"steps": steps}, "limit": value, "total": steps}
        case "max_iter":
            usual = min(ITERATIONS, value)
            note = f"{usual} iterations of CG are assumed, as usual for its default damping and tol; smaller ones take"
            return {
                "figures": {"iterations_assumed": usual, "iterations_at_most": value},
                "limit": value,
                "total": usual,
                "most": value,
                "note": f"{note} more, up to the {value:,} of {name}",
            }
    return {"figures": {leaf: value}, "limit": value}


def _candidates(stage: Stage, config: Config, counts: Mapping[str, int], shards: Collection[str]) -> dict[str, Any]:
    """How many candidates there are to be scored, as `Axis` takes it."""
    size = config.effort.shard_size if stage.name == "effort" else config.loss_drop.shard_size
    finished = size * sum(shard.endswith(".parquet") for shard in shards)
    samples = max(0, budget_count(config.pool.size, counts[UNITS]) - finished)
    return {"figures": {"samples": samples}, "limit": samples}


def small_budget(config: Config, counts: Mapping[str, int]) -> int:
    """Samples that a small run selects."""
    return min(budget_count(config.select.budget, counts[UNITS]), config.finetune.batch_size, SAMPLES)


def arms_of(stage: str, config: Config, counts: Mapping[str, int]) -> dict[str, float]:
    """Names of the arms for each of which a stage of `ARMS` does the same, and how many times it does so.

    A training takes as long as its samples: an arm of twice the budget counts twice.
    """
    budget = budget_count(config.select.budget, counts[UNITS])
    sizes = {name: budget_count(arm.budget, counts[UNITS]) / budget for name, arm in arms(config).items()}
    trainings = {tuning.name: sizes[tuning.arm] for tuning in fine_tunings(config)}
    return trainings if stage == "finetune" else {BASE: 1.0, **dict.fromkeys(trainings, 1.0)}
