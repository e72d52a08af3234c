"""What the cost of each stage grows with, how much of that the settings and the data ask for, and what it comes to."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import filter as matching
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dealrec.columns import USER
from dealrec.config import Config
from dealrec.config.arms import BASE, arms, fine_tunings
from dealrec.engine.measure import Cost
from dealrec.engine.run_directory import read_table
from dealrec.engine.settings import leaves, recorded
from dealrec.selection import budget_count
from dealrec.stages.context import Stage

# Of the data, which small runs have fewer of; samples are what a stage of the recommender is left: those of the warm
# start, the candidates or the selected.
UNITS, TITLES, SAMPLES = "units", "titles", "samples"
LEAST_TITLES = 64
# Conjugate gradients took 8 to 26 iterations on MovieLens, Games and made-up data, with the default damping and tol. An
# iteration is a pass over the data; others are of the residual, the gradients and the scores, and of the spectrum where
# it has to find a damping.
ITERATIONS, OTHER_PASSES, SPECTRUM_PASSES = 15, 3, 15
SHOWS = 1.0  # CPU seconds that a larger run must take longer than a small one, for noise to be small against it
GROWTHS, FACTOR = 3, 4  # how often a run is made larger at most until that shows, each time so many times the last
OF_ARMS = ("finetune", "evaluate")  # that do the same for each arm


@dataclass(frozen=True)
class Axis:
    """What a stage's cost grows with, in proportion, all else being as it is.

    name: of the data, or of a setting (in the table a pattern for such). least: how much of it the smallest run has.
    per: the setting that says how many times it is gone through, likewise. once: however often the rest is repeated.
    Of the run, not in the table: whole, how much of it there is, and times, the value of `per`.
    """

    name: str
    least: int = 1
    per: str = ""
    once: bool = False
    whole: int = 1
    times: int = 1


_UNITS, _TITLES, _CANDIDATES = Axis(UNITS, 256), Axis(TITLES, LEAST_TITLES), Axis(SAMPLES, 2)
_WARM_START = (_TITLES, Axis(SAMPLES, 16, per="*epochs"), Axis("*.validation_samples", 4, per="*epochs"))
_AIMED = (_CANDIDATES, Axis("*_drop.validation_samples", 2, per="*_drop.epochs"))
# By stage. Other stages only compare numbers, and are not measured.
SCALES: Mapping[str, tuple[Axis, ...]] = {
    "surrogate": (replace(_UNITS, per="surrogate.max_epochs"),),
    "influence": (_UNITS, Axis("influence.solver.depth", 4, per="influence.solver.repeats")),
    "surrogate_loss": (_UNITS,),
    "surrogate_error": (_UNITS,),
    "surrogate_state": (_UNITS,),
    "surrogate_loss_drop": (_UNITS, Axis("*_drop.validation_samples", 64, per="*_drop.epochs")),
    "title_embedding": (_TITLES,),
    "warmstart": _WARM_START,
    "signal_warmstart": _WARM_START,
    "length": (_UNITS,),
    "loss": (_CANDIDATES,),
    "effort": (_CANDIDATES,),
    "loss_drop": _AIMED,
    "alignment": _AIMED,
    "finetune": (
        Axis(SAMPLES, 4, per="finetune.epochs"),
        Axis("finetune.validation_samples", 2, per="finetune.epochs"),
    ),
    "evaluate": (
        replace(_TITLES, once=True),
        Axis("evaluate.loss_users", 4),
        Axis("evaluate.ranking_users", 2),
        Axis("evaluate.valid_samples", 2),
    ),
}


@dataclass
class Work:
    """What a stage does in a run. figures, notes: what is shown of it.

    repeats: how many times what a small run does, as for other arms, or in more iterations of a solver. most: by how
    much longer it takes if the data ask for all that the settings allow; None: they have no say.
    """

    axes: list[Axis]
    figures: dict[str, int] = field(default_factory=dict)
    repeats: float = 1.0
    most: float | None = None
    notes: tuple[str, ...] = ()


def work_of(
    stage: Stage, config: Config, data: Path, *, finished: Collection[str] = (), mean_size: float = 1.0
) -> Work:
    """data: the folder of the data. finished: the units or shards that an interrupted run of the stage has left.

    mean_size: what a sample counts for in a budget.
    """
    config = stage.view(config)
    settings = dict(leaves(recorded(config, stage.settings)))
    amounts = _amounts(stage.name, config, settings, data, finished, mean_size)
    axes = [
        replace(axis, name=name, whole=amounts[name], per=per, times=settings.get(per, 1))
        for axis in SCALES[stage.name]
        for per in (matching(settings, axis.per) or [""])[-1:]
        for name in matching(amounts, axis.name)
        if amounts[name]
    ]
    work = Work(axes, {_leaf(axis.name): axis.whole for axis in axes})
    for per, times in {axis.per: axis.times for axis in axes if axis.per}.items():
        patience = per.replace(_leaf(per), "patience")
        if settings.get(patience) is None:
            work.figures[_leaf(per)] = times
        else:
            work.figures["epochs_at_most"], work.most = times, 1.0
            work.notes = (f"all {times:,} epochs are counted; early stopping ({patience}) may end it sooner",)
    if most := settings.get("influence.solver.max_iter"):
        usual = min(ITERATIONS, most)
        work.figures |= {"iterations_assumed": usual, "iterations_at_most": most}
        other = OTHER_PASSES + (SPECTRUM_PASSES if settings["influence.solver.damping"] is None else 0)
        work.repeats, work.most = (other + usual) / (other + 1), (other + most) / (other + usual)
    if stage.name in OF_ARMS:
        whole = round(amounts[UNITS] * mean_size)
        missing = [size for arm, size in _arms(stage.name, config, whole).items() if arm not in finished]
        work.figures["arms"], work.repeats = len(missing), sum(missing)
    return work


def _amounts(
    stage: str, config: Config, settings: Mapping[str, Any], data: Path, finished: Collection[str], mean_size: float
) -> dict[str, int]:
    """How much there is in the run of whatever an axis may be of, by its name."""
    train, valid, test = (read_table(data / f"samples-{part}.parquet") for part in ("train", "valid", "test"))
    there = {"users": test[USER].n_unique(), "samples": len(valid)}
    amounts = {UNITS: len(train), TITLES: len(read_table(data / "items.parquet"))}
    if stage.endswith("warmstart"):
        warm = len(read_table(data / "samples-warm.parquet"))
        amounts[SAMPLES] = min(warm, settings.get("warmstart.samples") or warm)
    elif stage in OF_ARMS:
        amounts[SAMPLES] = max(1, round(budget_count(config.select.budget, round(len(train) * mean_size)) / mean_size))
    else:
        shard = config.effort.shard_size if stage == "effort" else config.loss_drop.shard_size
        scored = shard * sum(name.endswith(".parquet") for name in finished)
        amounts[SAMPLES] = max(1, budget_count(config.pool.size, len(train)) - scored)
    amounts["influence.solver.depth"] = settings.get("influence.solver.depth", 0)
    for name, value in settings.items():
        most = there.get(name.rpartition("_")[2])
        # Without patience a training looks at no validation samples.
        if most is not None and settings.get(name.replace(_leaf(name), "patience"), 1) is not None:
            amounts[name] = most if value is None else min(value, most)
    return amounts


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _arms(stage: str, config: Config, n: int) -> dict[str, float]:
    """What a stage does the same for, by name, each with how many times what a small run does.

    A training takes as long as its samples; a small evaluation is of two arms. n: of all samples, as budgets count.
    """
    budget = budget_count(config.select.budget, n)
    sizes = {name: budget_count(arm.budget, n) / budget for name, arm in arms(config).items()}
    trainings = {tuning.name: sizes[tuning.arm] for tuning in fine_tunings(config)}
    return trainings if stage == "finetune" else dict.fromkeys((BASE, *trainings), 1 / 2)


def scaled(run: Callable[[Mapping[str, int]], Cost], work: Work) -> Cost:
    """Run a stage at its least sizes twice, then with one axis larger at a time; add up what the whole of each takes.

    run: at sizes by the names of axes. The first run alone pays for imports, as one in earnest does, and counts once.
    """
    least = {axis.name: min(axis.least, axis.whole) for axis in work.axes}
    costs = [run(least), run(least)]
    first, base = map(_seconds, costs)
    total = first + (work.repeats - 1) * base
    for axis in work.axes:
        small = size = least[axis.name]
        most = axis.whole * (1 if "." in axis.name else axis.times)  # data that are few are gone through more often
        growth = np.zeros(2)
        for larger in (min(most, axis.least * FACTOR**number) for number in range(1, GROWTHS + 1)):
            if larger <= size or growth[1] >= SHOWS:
                break
            part, times = min(larger, axis.whole), -(-larger // axis.whole)
            costs.append(run({**least, axis.name: part} | ({axis.per: times} if times > 1 else {})))
            size, growth = part * times, np.maximum(0.0, _seconds(costs[-1]) - base)
        rate = growth / max(1, size - small) * (1.0 if axis.once else work.repeats)
        total = total + rate * (axis.whole * axis.times - small)
    wall, cpu = map(float, total)
    return Cost(wall, cpu, max(cost.peak_memory_bytes for cost in costs))


def _seconds(cost: Cost) -> NDArray[np.float64]:
    return np.array([cost.wall_seconds, cost.cpu_seconds])
