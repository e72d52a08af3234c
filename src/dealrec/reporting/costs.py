"""What each stage cost, and what selecting costs beside the fine-tuning that it is for."""

from dataclasses import dataclass

from dealrec.config import Config
from dealrec.config.arms import fine_tunings
from dealrec.engine.run_directory import Run
from dealrec.formats import memory, seconds, times

SHARED = ("data", "warmstart")  # stages that are there whatever is selected


@dataclass(frozen=True)
class Line:
    """A stage and its cost, as shown."""

    stage: str
    wall: str
    cpu: str
    memory: str
    device: str


@dataclass(frozen=True)
class Share:
    """Selecting (its stages and those of its signals) against fine-tuning the selected arm; seconds, as shown."""

    words: str
    stages: str
    selection: tuple[str, str]
    finetuning: tuple[str, str]
    ratio: tuple[str, str]
    how: str


def lines(run: Run[Config]) -> list[Line]:
    """One line for each stage, and one for the whole."""
    manifests = run.manifests.values()
    stages = [
        Line(m.stage, seconds(m.wall_seconds), seconds(m.cpu_seconds), memory(m.peak_memory_bytes), m.device)
        for m in manifests
    ]
    wall, cpu = sum(m.wall_seconds for m in manifests), sum(m.cpu_seconds for m in manifests)
    peak = max(m.peak_memory_bytes for m in manifests)
    return [*stages, Line("all", seconds(wall), seconds(cpu), memory(peak), "")]


def selected_part(work: dict[str, int]) -> float:
    """The part of the fine-tuning that is the first training of the selected samples, by the steps of each training.

    >>> selected_part({"selected": 16, "random-0": 16, "random-1": 16})  # doctest: +ELLIPSIS
    0.333...
    """
    total = sum(work.values())
    return work["selected"] / total if total else 0.0


def share(run: Run[Config]) -> Share | None:
    """Compare the cost of selecting with that of one training on the selected samples; None unless both were done."""
    if not run.has("select", "finetune"):
        return None
    selecting = [name for name in run.stages[: run.stages.index("select") + 1] if name not in SHARED]
    names = [fine_tuning.name for fine_tuning in fine_tunings(run.config)]
    part = selected_part({name: run.json(f"finetune/{name}/training.json")["steps"] for name in names})
    manifests = [run.manifests[stage] for stage in selecting]
    selection = sum(m.wall_seconds for m in manifests), sum(m.cpu_seconds for m in manifests)
    finetune = run.manifests["finetune"]
    finetuning = part * finetune.wall_seconds, part * finetune.cpu_seconds
    ratio = [times(left / right) if right else "" for left, right in zip(selection, finetuning, strict=True)]
    # A GPU's work does not show in the CPU's time.
    clock = 1 if finetune.device == "cpu" else 0
    kind, joint = ("wall", "CPU")[clock], " of" if ratio[clock].endswith("%") else ""
    return Share(
        words=f"Selecting cost {ratio[clock]}{joint} the {kind} time of fine-tuning on what was selected.",
        stages=", ".join(selecting),
        selection=(seconds(selection[0]), seconds(selection[1])),
        finetuning=(seconds(finetuning[0]), seconds(finetuning[1])),
        ratio=(ratio[0], ratio[1]),
        how=(
            f"The finetune stage's time covers all its trainings ({_trainings(run.config)}), with loading the model and"
            " checking what was saved; it is shared among them by their steps."
        ),
    )


def _trainings(config: Config) -> str:
    """What was trained, and how often."""
    selections, random, seeds = config.select.selections, config.select.random_arms, config.finetune.seeds
    arms = "the selected arm" if selections == 1 else f"{selections} selected arms"
    arms += f" and {random} random" if random else ""
    return f"{arms}, each {seeds} times" if seeds > 1 else arms
