"""What the cost of each stage grows with, and how much of that the settings and the data ask for."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import filter as matching
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dealrec.columns import USER
from dealrec.config import Config
from dealrec.config.arms import BASE, arms, fine_tunings
from dealrec.engine.run_directory import read_table
from dealrec.estimates.scaling import Axis
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
OF_ARMS = ("finetune", "evaluate")  # that do the same for each arm

_UNITS, _CANDIDATES = Axis(UNITS, 256, 768), Axis(SAMPLES, 2, 8)
# By stage; a setting's name is a pattern for the stage's own. Other stages only compare numbers, and are not measured.
SCALES: Mapping[str, tuple[Axis, ...]] = {
    "surrogate": (replace(_UNITS, per="surrogate.max_epochs"),),
    "influence": (_UNITS, Axis("influence.solver.depth", 1, 16, per="influence.solver.repeats")),
    **dict.fromkeys(("surrogate_loss", "surrogate_error", "surrogate_state"), (_UNITS,)),
    "surrogate_loss_drop": (
        _UNITS,
        Axis("surrogate_loss_drop.validation_samples", 64, 192, per="surrogate_loss_drop.epochs"),
    ),
    "title_embedding": (Axis(TITLES, LEAST_TITLES, 192),),
    **dict.fromkeys(
        ("warmstart", "signal_warmstart"),
        (
            Axis(TITLES, LEAST_TITLES, 192),
            Axis(SAMPLES, 16, 48, per="*epochs"),
            Axis("*.validation_samples", 1, 15, per="*epochs"),
        ),
    ),
    **dict.fromkeys(("loss", "effort"), (_CANDIDATES,)),
    **dict.fromkeys(
        ("loss_drop", "alignment"),
        (_CANDIDATES, Axis("loss_drop.validation_samples", 2, 8, per="loss_drop.epochs")),
    ),
    "finetune": (
        Axis(SAMPLES, 4, 8, per="finetune.epochs"),
        Axis("finetune.validation_samples", 1, 8, per="finetune.epochs"),
    ),
    "evaluate": (
        Axis(TITLES, LEAST_TITLES, 192, once=True),
        Axis("evaluate.loss_users", 2, 14),
        Axis("evaluate.ranking_users", 1, 7),
        Axis("evaluate.valid_samples", 1, 8),
    ),
}


@dataclass
class Work:
    """What a stage does in a run. figures, notes: what is shown of it.

    repeats: how many times what a small run does, as for other arms, or in more iterations of a solver. most: by how
    much longer it takes if the data ask for all that the settings allow; None: they have no say.
    """

    axes: list[Axis] = field(default_factory=list)
    repeats: float = 1.0
    figures: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    most: float | None = None


def work_of(stage: Stage, config: Config, data: Path, *, finished: Collection[str] = ()) -> Work:
    """data: the folder of the data. finished: the units or shards that an interrupted run of the stage has left."""
    config = stage.view(config)
    work, settings = Work(), settings_of(config, stage.settings)
    train, valid, test = (read_table(data / f"samples-{part}.parquet") for part in ("train", "valid", "test"))
    counts = {UNITS: len(train), TITLES: len(read_table(data / "items.parquet"))}
    counts[SAMPLES] = _samples(stage.name, config, data, len(train), finished)
    for axis in SCALES[stage.name]:
        per = (matching(settings, axis.per) or [""])[-1]
        for name in matching((*counts, *settings), axis.name):
            leaf, whole = name.rpartition(".")[2], counts.get(name, settings.get(name))
            if leaf.endswith(("_users", "_samples")):
                there = test[USER].n_unique() if leaf.endswith("_users") else len(valid)
                whole = there if whole is None else min(whole, there)
            # Without patience a training looks at no validation samples.
            if whole and settings.get(name.replace(leaf, "patience"), 1) is not None:
                work.axes.append(replace(axis, name=name, whole=whole, per=per, times=settings.get(per, 1)))
                work.figures[leaf] = whole
    for name in dict.fromkeys(axis.per for axis in work.axes if axis.per):
        (section, _, leaf), value = name.rpartition("."), settings[name]
        if settings.get(f"{section}.patience") is None:
            work.figures[leaf] = value
        else:
            work.figures["epochs_at_most"], work.most = value, 1.0
            work.notes.append(
                f"all {value:,} epochs are counted; early stopping ({section}.patience) may end it sooner"
            )
    if most := settings.get("influence.solver.max_iter"):
        usual = min(ITERATIONS, most)
        work.figures |= {"iterations_assumed": usual, "iterations_at_most": most}
        other = OTHER_PASSES + (SPECTRUM_PASSES if settings["influence.solver.damping"] is None else 0)
        work.repeats, work.most = (other + usual) / (other + 1), (other + most) / (other + usual)
    if stage.name in OF_ARMS:
        missing = [amount for arm, amount in _arms(stage.name, config, len(train)).items() if arm not in finished]
        work.figures["arms"], work.repeats = len(missing), sum(missing)
    return work


def settings_of(config: Config, names: Collection[str] = tuple(Config.model_fields)) -> dict[str, Any]:
    """The settings of these names and sections, each by its dotted name; none of what nothing reads."""

    def leaves(section: BaseModel, prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in section:
            yield from leaves(value, f"{prefix}{key}.") if isinstance(value, BaseModel) else [(prefix + key, value)]

    wanted = tuple(f"{name}." for name in names if name.partition(".")[0] not in config.unread_sections())
    return {name: value for name, value in leaves(config, "") if f"{name}.".startswith(wanted)}


def _samples(stage: str, config: Config, data: Path, n: int, finished: Collection[str]) -> int:
    """How many samples a stage of the recommender has been left, of n for training."""
    if stage.endswith("warmstart"):
        warm = len(read_table(data / "samples-warm.parquet"))
        return min(warm, settings_of(config, ["warmstart"]).get("warmstart.samples") or warm)
    if stage in OF_ARMS:
        return budget_count(config.select.budget, n)
    size = config.effort.shard_size if stage == "effort" else config.loss_drop.shard_size
    return max(1, budget_count(config.pool.size, n) - size * sum(name.endswith(".parquet") for name in finished))


def _arms(stage: str, config: Config, n: int) -> dict[str, float]:
    """What a stage does the same for, by name, each with how many times what a small run does.

    A training takes as long as its samples; a small evaluation is of two arms.
    """
    budget = budget_count(config.select.budget, n)
    sizes = {name: budget_count(arm.budget, n) / budget for name, arm in arms(config).items()}
    trainings = {tuning.name: sizes[tuning.arm] for tuning in fine_tunings(config)}
    return trainings if stage == "finetune" else dict.fromkeys((BASE, *trainings), 1 / 2)
