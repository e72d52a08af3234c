"""What the runs share: the task that was drawn for all of them, and the form of a result. Needs torch alone."""

import argparse
import json
import platform
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from model import BLOCK, LINEAR, SASRec  # type: ignore[import-not-found]
from torch import Tensor

Part = dict[str, Tensor]  # items [n, 50], candidates [n, 50, 2], weights [n, 50]; the longest units first
Scored = tuple[Tensor, float, float, dict[str, Any]]  # scores [n], seconds of setup and of scoring, remarks


@dataclass(frozen=True)
class Task:
    """Data, parameters and settings. threads: of every run. repeats: the fastest counts."""

    train: Part
    held_out: Part
    state: dict[str, Tensor]
    settings: dict[str, Any]

    def model(self, trainable: Collection[str] = ()) -> Any:
        """The model at its trained parameters, in eval mode; the parameters that are not named need no gradient."""
        surrogate = SASRec(self.settings["items"])
        surrogate.load_state_dict(self.state)
        for name, value in surrogate.named_parameters():
            value.requires_grad_(name in trainable)
        return surrogate.eval()

    def chosen(self, which: str) -> dict[str, Tensor]:
        """The parameters that scores are about: all of the last block ("block"), or its linear layers' ("linear")."""
        prefixes = (BLOCK,) if which == "block" else tuple(f"{name}." for name in LINEAR)
        return {name: value for name, value in self.state.items() if name.startswith(prefixes)}


def load(folder: Path) -> Task:
    """The task that prepare.py wrote to a folder."""
    tensors = torch.load(folder / "task.pt", weights_only=True)
    return Task(**tensors, settings=json.loads((folder / "settings.json").read_text()))


def trimmed(part: Part) -> Part:
    """Without the columns that are padding in all rows."""
    longest = int((part["weights"] > 0).sum(1).max())
    return {name: value[:, :longest].contiguous() for name, value in part.items()}


def batches(part: Part, size: int) -> list[Part]:
    """Batches of units alike in length, each as wide as its longest."""
    n = len(part["items"])
    return [trimmed({name: value[at : at + size] for name, value in part.items()}) for at in range(0, n, size)]


def rows(part: Part) -> tuple[Tensor, Tensor, Tensor]:
    """Items, candidates, weights: for data loaders of tuples."""
    return part["items"], part["candidates"], part["weights"]


class Clock:
    """Seconds since it was made or last read."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def read(self) -> float:
        """Seconds; starts again."""
        now = time.perf_counter()
        seconds, self.start = now - self.start, now
        return seconds


def run(score: Callable[[Task, str], Scored], *, package: str) -> None:
    """Score all training units as the command line says; write scores and seconds of the fastest repeat.

    Usage: run_x.py TASK_FOLDER METHOD RESULT_STEM
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("task", type=Path)
    parser.add_argument("method")
    parser.add_argument("result", type=Path)
    options = parser.parse_args()
    task = load(options.task)
    torch.set_num_threads(task.settings["threads"])
    runs = [_repeat(score, task, options.method) for _ in range(task.settings["repeats"])]
    (scores, setup, scoring, remarks), processor = min(runs, key=lambda timing: timing[0][1] + timing[0][2])
    result = {
        "package": package,
        "version": version(package),
        "method": options.method,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "setup_seconds": setup,
        "scoring_seconds": scoring,
        "seconds": setup + scoring,
        "processor_seconds": processor,
        **remarks,
    }
    torch.save(scores.detach().double().clone(), options.result.with_suffix(".pt"))
    options.result.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


def _repeat(score: Callable[[Task, str], Scored], task: Task, method: str) -> tuple[Scored, float]:
    """One run, its result and the seconds of processor time, which other programs on the machine disturb less."""
    torch.manual_seed(0)
    start = time.process_time()
    return score(task, method), time.process_time() - start
