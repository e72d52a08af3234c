"""The replicates, one after the other or several at a time; what is finished of them is kept."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dealrec.comparing.learning_rates import FOLDER, tuned, tuning_config, with_rates
from dealrec.comparing.replicates import replicate_config
from dealrec.config import Config
from dealrec.engine.manifest import checked_manifest, damage_line, read_manifest
from dealrec.engine.run_directory import write_text
from dealrec.engine.runner import LOCK, opened, run
from dealrec.engine.stage import Progress, Silent, link_folder
from dealrec.engine.workers import in_processes
from dealrec.errors import ConfigError
from dealrec.estimates import Estimates, Plan, estimate
from dealrec.stages import evaluate
from dealrec.stages.context import Stage
from dealrec.stages.pipeline import results

SETTINGS = "comparison-config.json"
_SAME = ("data", "title_embedding")  # nothing is drawn there
SHARED = {"shared": (*_SAME, "warmstart", "signal_warmstart"), "own": _SAME}  # of all replicates: stages
NOT_NEEDED = ("export", "compare")
MAY_CHANGE = {"compare", "select", "pool", "fidelity"}  # sections that add cells, or make other ones


def run_replicates(config: Config, run_dir: Path, *, progress: Progress) -> list[Path]:
    """Bring every replicate up to date up to its evaluation; their folders.

    Raises ConfigError for a folder of another configuration.
    """
    with opened(run_dir):
        _refuse_other(config, run_dir, progress)
        folders = [run_dir / f"replicate-{number}" for number in range(config.compare.replicates)]
        configs = [replicate_config(config, number) for number in range(len(folders))]
        shared = [stage for stage in _stages(configs[0]) if stage.name in SHARED[config.compare.warm_starts]]
        run(configs[0], folders[0], shared, progress=progress)
        names = [stage.name for stage in shared]
        for folder in folders[1:]:
            _share(folders[0], folder, names, progress)
        if config.compare.learning_rates:
            progress.say("learning rates ...")
            tuning, folder = tuning_config(config), run_dir / FOLDER
            _share(folders[0], folder, [stage.name for stage in _stages(tuning) if stage.name in names], progress)
            run(tuning, folder, _stages(tuning), progress=progress)
            rates = tuned(config, run_dir)
            configs = [with_rates(settings, rates) for settings in configs]
        if config.compare.workers == 1 or len(folders) == 1:
            for number, (settings, folder) in enumerate(zip(configs, folders, strict=True)):
                progress.say(f"replicate {number + 1} of {len(folders)} ...")
                run(settings, folder, _stages(settings), progress=progress)
        else:
            calls = [partial(_replicate, *pair) for pair in zip(configs, folders, strict=True)]
            with progress.bar("replicates", len(calls)) as advance:
                in_processes("compare", calls, workers=config.compare.workers, advance=advance)
    return folders


@dataclass(frozen=True)
class Duration:
    """What a comparison is expected to take. replicates: of each that has work left, its estimate.

    seconds: of all, with as many at a time as compare.workers says, and of the learning rates that are tried before.
    """

    replicates: tuple[Estimates, ...]
    seconds: float


def estimate_replicates(config: Config, run_dir: Path, *, progress: Progress) -> Duration:
    """Measure small pieces of the first replicate; another one takes as long, less what all share.

    Nothing is written. A replicate that has been begun counts for what is missing of it.
    """
    if run_dir.exists():
        _refuse_other(config, run_dir, progress, write=False)
    settings = replicate_config(config, 0)
    first = estimate(settings, run_dir / "replicate-0", stages=_stages(settings), progress=progress)
    whole, shared = [first], SHARED[config.compare.warm_starts]
    for number in range(1, config.compare.replicates):
        folder = run_dir / f"replicate-{number}"
        begun = [read_manifest(folder / stage.stage) is not None for stage in first.stages]
        stages = [
            replace(stage, plan=Plan.UP_TO_DATE if done or stage.stage in shared else Plan.WILL_RUN)
            for stage, done in zip(first.stages, begun, strict=True)
        ]
        whole.append(replace(first, stages=stages))
    workers = min(config.compare.workers, len(whole))
    seconds = sum(estimates.seconds for estimates in whole) / workers
    if config.compare.learning_rates:
        tuning = tuning_config(config)
        seconds += estimate(tuning, run_dir / FOLDER, stages=_stages(tuning), progress=progress).seconds
    return Duration(tuple(whole), seconds)


def _stages(config: Config) -> tuple[Stage, ...]:
    """Those of a replicate. Raises ConfigError where the settings leave nothing to evaluate on."""
    stages = tuple(stage for stage in results(config) if stage.name not in NOT_NEEDED)
    if all(stage.name != evaluate.STAGE.name for stage in stages):
        fault = "data.test_rows is null" if config.data.format == "rows" else "data.final leaves no test part"
        raise ConfigError(
            f"A comparison is of the loss on test samples, and {fault}",
            "Name rows to evaluate on in data.test_rows." if config.data.format == "rows" else "Set it to false.",
        )
    return stages


def _share(source: Path, folder: Path, stages: Iterable[str], progress: Progress) -> None:
    """Have a replicate go on from what all have in common, as hard links."""
    folder.mkdir(exist_ok=True)
    for name in stages:
        (ours, damage), theirs = checked_manifest(folder / name), read_manifest(source / name)
        if damage:
            progress.say(f"warning: {damage_line(folder / name, damage)}; taken again from {source}")
        if ours is None or theirs is None or ours.fingerprint != theirs.fingerprint:
            shutil.rmtree(folder / name, ignore_errors=True)
            part = folder / f"{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            link_folder(source / name, part)
            part.rename(folder / name)
    (folder / LOCK).touch()  # it is a run directory


def _replicate(config: Config, folder: Path) -> None:
    import torch

    torch.set_num_threads(1)  # many threads would only wait for each other
    run(config, folder, _stages(config), progress=Silent())


def _with_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as they were written down, those that there were not yet at their defaults."""
    try:
        return Config.model_validate(settings).model_dump(mode="json", exclude=MAY_CHANGE)
    except ValidationError:
        return settings


def _refuse_other(config: Config, run_dir: Path, progress: Progress, *, write: bool = True) -> None:
    """Raise ConfigError where the cells that are there are of other settings than those that may differ in a series."""
    path = run_dir / SETTINGS
    fixed = config.model_dump(mode="json", exclude=MAY_CHANGE)
    try:
        there = _with_defaults(dict(json.loads(path.read_bytes())))
    except (FileNotFoundError, ValueError, TypeError) as error:
        if not isinstance(error, FileNotFoundError):  # each stage knows what it was made from: nothing is mixed up
            progress.say(f"warning: {path} is damaged: it is no JSON; made again")
        if write:
            write_text(path, json.dumps(fixed, indent=2) + "\n")
        return
    changed = sorted(name for name in {*fixed, *there} if fixed.get(name) != there.get(name))
    if changed:
        raise ConfigError(
            f"{run_dir} holds a comparison under another configuration: {', '.join(changed)} differ",
            "Choose another --run-dir; methods, budgets and replicates may be added to this one.",
        )
