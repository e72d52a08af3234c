"""The cells of a comparison: what each training of each arm of each replicate came to for every user."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from dealrec.columns import GENERATED
from dealrec.config import Config
from dealrec.config.arms import RANDOM, arms, fine_tunings
from dealrec.config.selection import Budget
from dealrec.engine.manifest import Manifest, read_manifest
from dealrec.engine.run_directory import read_table
from dealrec.stages.evaluate import VALID
from dealrec.stages.pipeline import results


@dataclass(frozen=True)
class Cell:
    """One training: of which arm, method and replicate, of how many samples and label tokens, and where it lies.

    budget: that of the arm, as the settings have it, whatever it comes to in samples.
    """

    arm: str
    method: str
    replicate: int
    training: int
    budget: Budget
    size: int
    label_tokens: int
    folder: Path

    def users(self) -> pl.DataFrame:
        """The measures of each test user."""
        return read_table(self.folder / "per_user.parquet").drop(GENERATED, strict=False)

    def valid(self) -> pl.DataFrame:
        """The loss of each validation sample."""
        return read_table(self.folder / VALID)

    def has_valid(self) -> bool:
        """Whether the loss of validation samples was measured."""
        return (self.folder / VALID).exists()


def cells_of(config: Config, run_dir: Path, labels: Mapping[str, str]) -> Iterator[Cell]:
    """Of one replicate; an arm whose method failed has none."""
    budgets = arms(config)
    for tuning in fine_tunings(config):
        path = run_dir / "finetune" / tuning.name / "training.json"
        if not path.exists():
            continue
        facts = json.loads(path.read_text())
        folder, name = run_dir / "evaluate" / tuning.name, tuning.arm
        sizes = budgets[name].budget, facts["samples"], facts["label_tokens"]
        yield Cell(name, labels[name], config.replicate, tuning.training, *sizes, folder)


def cost_seconds(config: Config, run_dir: Path, name: str) -> float:
    """CPU seconds (of a GPU wall seconds) of everything that an arm's method reads, from the surrogate on."""
    arm = arms(config)[name]
    only = {"method": arm.method, "options": arm.options, "arms": {}, "random_arms": 0}
    alone = config.model_copy(update={"select": config.select.model_copy(update=only)})
    shared = {"data", "warmstart", "select"}
    names = [stage.name for stage in results(alone)]
    manifests = [read_manifest(run_dir / stage) for stage in names[: names.index("select")] if stage not in shared]
    return sum(seconds(manifest) for manifest in manifests if manifest is not None)


def seconds(manifest: Manifest) -> float:
    """What a stage took: of the CPU, or where a GPU worked on the clock."""
    return manifest.cpu_seconds if manifest.device == "cpu" else manifest.wall_seconds


def seconds_per_sample(cells: Sequence[Cell], run_dir: Path) -> float:
    """What training on one more sample takes in a replicate: the slope of Random's trainings over their sizes.

    What each training takes whatever its size, such as loading the model, is no price of a sample. With one size, or
    where larger ones were no slower: the mean.
    """
    manifest = read_manifest(run_dir / "finetune")
    if manifest is None:
        return 0.0
    clock = 1 if manifest.device == "cpu" else 0
    random = {cell.folder.name: cell.size for cell in cells if cell.method == RANDOM}
    timed = [(size, manifest.unit_costs[name][clock]) for name, size in random.items() if name in manifest.unit_costs]
    if len({size for size, _ in timed}) > 1:
        sizes, seconds_ = (np.array(column, dtype=float) for column in zip(*timed, strict=True))
        slope = float(np.polyfit(sizes, seconds_, 1)[0])
        if slope > 0:
            return slope
    trained = sum(cell.size for cell in cells)
    return seconds(manifest) / trained if trained else 0.0
