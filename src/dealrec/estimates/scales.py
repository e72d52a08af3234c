"""What the cost of each stage grows with: the table, and how much of each the settings and the data ask for."""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import Any

from dealrec.config import Config
from dealrec.config.arms import BASE, fine_tunings
from dealrec.engine.stage import Stage
from dealrec.selection import budget_count

UNITS, WARM, TITLES = "units", "warm samples", "titles"  # of the data, which small runs have fewer of

# Conjugate gradients took 8 to 26 iterations on MovieLens, Games and made-up data, with the default damping and tol.
ITERATIONS = 15
LEAST_TITLES = 64
SAMPLES = 8  # that a small fine-tuning has, at most


@dataclass(frozen=True)
class Axis:
    """What a stage's cost grows with, in proportion, all else being as it is.

    name: of the data, or of a setting (a pattern, for one of the stage's own). least: of the smallest run; step: to the
    next one. kept: later axes are measured at the size that was reached; per: the kept one that the cost of each grows
    with. once: whatever the number of arms. shard: the setting that says how much of it each finished shard holds.
    """

    name: str
    least: int = 1
    step: int = 1
    kept: bool = False
    per: str | None = None
    once: bool = False
    shard: str | None = None


# What each stage's cost grows with. A stage that is not here takes as long as its small run.
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
    "effort": (Axis("effort.pool", 2, SAMPLES, shard="effort.shard_size"),),
    "finetune": (Axis("finetune.epochs"), Axis("finetune.validation_samples", 1, 8)),
    "evaluate": (
        Axis(TITLES, LEAST_TITLES, 256, once=True),
        Axis("evaluate.loss_users", 2, 16),
        Axis("evaluate.ranking_users", 1, 8),
    ),
}
# Of those that do the same for each arm: how many arms the smallest run has.
ARMS = {"finetune": 1, "evaluate": 2}


@dataclass(frozen=True)
class Amount:
    """Of an axis, in the run.

    figures: what is shown of it. limit: the largest size that can be tried. total: what is done in all, in such sizes;
    None: `limit`. most: by the settings, where the data decide how much of it is done, and `note` says so.
    """

    figures: dict[str, int]
    limit: int
    total: float | None = None
    most: float | None = None
    note: str | None = None


def settings_of(config: Config) -> dict[str, Any]:
    """Every setting by its dotted name; none of the recommenders that the run is not about."""

    def leaves(section: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in section.items():
            yield from leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]

    unread = config.unread_sections()
    return dict(leaves({key: value for key, value in config.model_dump().items() if key not in unread}, ""))


def axes_of(
    stage: Stage, config: Config, counts: Mapping[str, int], *, shards: Collection[str] = ()
) -> Iterator[tuple[Axis, Amount]]:
    """The axes of a stage that there are in a run, a pattern's one after the other.

    counts: of the data. shards: what an interrupted run of the stage has left.
    """
    settings = settings_of(config)
    for axis in SCALES.get(stage.name, ()):
        if axis.name in counts:
            yield axis, Amount({axis.name: counts[axis.name]}, counts[axis.name])
            continue
        own = (name for name in settings if any(f"{name}.".startswith(f"{part}.") for part in stage.settings))
        for name in own:
            section, _, leaf = name.rpartition(".")
            unused = leaf == "validation_samples" and settings[f"{section}.patience"] is None
            if fnmatch(name, axis.name) and not unused:
                amount = _amount(name, config, settings, counts)
                if axis.shard is not None and shards:
                    left = amount.limit - settings[axis.shard] * sum(shard.endswith(".parquet") for shard in shards)
                    amount = Amount({leaf: max(0, left)}, max(0, left))
                yield replace(axis, name=name), amount


def _amount(name: str, config: Config, settings: Mapping[str, Any], counts: Mapping[str, int]) -> Amount:
    value, (section, _, leaf) = settings[name], name.rpartition(".")
    match leaf:
        case "epochs" | "max_epochs":
            total = value * (budget(config, counts) / small_budget(config, counts) if section == "finetune" else 1.0)
            if settings.get(f"{section}.patience") is None or not counts["valid"]:
                return Amount({"epochs": value}, math.ceil(total), total)
            note = f"all {value:,} epochs are counted; early stopping ({section}.patience) may end it sooner"
            return Amount({"epochs_at_most": value}, math.ceil(total), total, total, note)
        case "validation_samples":
            some = min(value, counts["valid"])
            epochs = settings.get(f"{section}.epochs", settings.get(f"{section}.max_epochs"))
            return Amount({"validated_per_epoch": some}, some, some * epochs)
        case "loss_users" | "ranking_users":
            some = counts["test"] if value is None else min(value, counts["test"])
            return Amount({leaf: some}, some)
        case "pool":
            some = budget_count(value, counts[UNITS])
            return Amount({"samples": some}, some)
        case "depth":
            steps = value * settings[f"{section}.repeats"]
            return Amount({"steps": steps}, value, steps)
        case "max_iter":
            usual = min(ITERATIONS, value)
            figures = {"iterations_assumed": usual, "iterations_at_most": value}
            note = f"{usual} iterations of CG are assumed, as usual for its default damping and tol; smaller ones take"
            return Amount(figures, value, usual, value, f"{note} more, up to the {value:,} of {name}")
    return Amount({leaf: value}, value)


def budget(config: Config, counts: Mapping[str, int]) -> int:
    """Samples that are selected."""
    return budget_count(config.select.budget, counts[UNITS])


def small_budget(config: Config, counts: Mapping[str, int]) -> int:
    """Samples that a small run selects."""
    return min(budget(config, counts), config.finetune.batch_size, SAMPLES)


def arms_of(stage: str, config: Config) -> list[str]:
    """Names of the arms for each of which a stage of `ARMS` does the same."""
    return [BASE, *(one.name for one in fine_tunings(config))][2 - ARMS[stage] :]
