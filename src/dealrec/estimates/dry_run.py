"""The estimate of a run: its data stage is run as a whole, the others several times in small, and scaled."""

import errno
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from dealrec.config import Config
from dealrec.devices import compute_device
from dealrec.engine.manifest import Manifest, thread_count
from dealrec.engine.measure import Cost, Meter
from dealrec.engine.runner import refuse_foreign_directory
from dealrec.engine.stage import Context, Progress, Silent, Stage
from dealrec.errors import RunDirectoryError
from dealrec.estimates.piece import Piece
from dealrec.estimates.plans import Plan, Planned, planned
from dealrec.estimates.results import Estimate, Estimates
from dealrec.estimates.scales import ARMS, arms_of, axes_of
from dealrec.estimates.scaling import scaled
from dealrec.stages.feasibility import check_feasible
from dealrec.stages.pipeline import stages_until

# Tables by sample, and a model over the whole catalogue: what has been computed of these fits small runs as it is.
_FITTING = ("surrogate", "influence", "effort")
_UNESTIMATED = "not estimated: one page, a matter of seconds"
_SPARED = "it is skipped where what it reads comes out as it was"


def estimate(config: Config, run_dir: Path, *, until: str = "report", progress: Progress | None = None) -> Estimates:
    """What `run` would do in `run_dir` up to the stage `until`, and what it would cost on this machine.

    Nothing is written to `run_dir`, which need not exist. Stages that are up to date are not measured. Raises
    DealrecError as `run` would before its first costly stage, and where a stage refuses to run in small.
    """
    start, progress, warnings = time.perf_counter(), progress or Silent(), list[str]()
    plans = _plans(config, run_dir, stages_until(until))
    with TemporaryDirectory(prefix="dealrec-") as name:
        folder = Path(name)
        estimates = [_data(config, folder, run_dir, plans[0], progress, warnings)]
        piece = Piece(config, folder)
        for place, plan in enumerate(plans[1:], start=1):
            estimates.append(_measured(piece, plan, progress) if _is_measured(plan) else _unmeasured(plan))
            if plan.plan is Plan.UP_TO_DATE and any(map(_is_measured, plans[place:])):
                _stand_in(piece, plan.stage, run_dir)
    return Estimates(estimates, time.perf_counter() - start, _device(), thread_count(), tuple(warnings))


def _plans(config: Config, run_dir: Path, stages: Sequence[Stage]) -> list[Planned]:
    """What a run would do; raises RunDirectoryError where it could not work in the run directory."""
    try:
        refuse_foreign_directory(run_dir)
        there = next(folder for folder in (run_dir, *run_dir.absolute().parents) if folder.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return list(planned(config, run_dir, stages))
    except OSError as error:
        raise RunDirectoryError(f"Cannot use {run_dir}: {error.strerror}", "Choose another --run-dir.") from error


def _data(
    config: Config, folder: Path, run_dir: Path, plan: Planned, progress: Progress, warnings: list[str]
) -> Estimate:
    """Of the data stage; all that comes out of it is in the folder."""
    name, figures = plan.stage.name, {}
    cost: Cost | Manifest | None = plan.manifest
    if plan.plan is Plan.UP_TO_DATE:
        (folder / name).symlink_to((run_dir / name).absolute())
    else:
        progress.say("reading the data ...")
        (folder / name).mkdir()
        context = Context(name, config, Silent(), folder, folder / name, plan.stage.inputs, warnings=warnings)
        meter = Meter()
        plan.stage.run(context)
        cost = meter.read()
        figures = {name: value for name, value in context.facts.items() if name in ("items", "train_samples")}
    warnings += check_feasible(config, folder)
    return _of_cost(plan, cost, figures)


def _is_measured(plan: Planned) -> bool:
    return plan.plan is not Plan.UP_TO_DATE and not plan.stage.reads_manifests


def _measured(piece: Piece, plan: Planned, progress: Progress) -> Estimate:
    """From small runs of the stage; the outcome of the last of them is left for later stages."""
    name = plan.stage.name
    progress.say(f"measuring a piece of {name} ...")
    axes = list(axes_of(plan.stage, piece.config, piece.counts, shards=plan.shards))
    figures = {key: value for _, amount in axes for key, value in amount.figures.items()}
    notes = [amount.note for _, amount in axes if amount.note]
    arms = 1.0
    if name in ARMS:
        figures["arms"] = sum(arm not in plan.shards for arm in arms_of(name, piece.config))
        arms = figures["arms"] / ARMS[name]
    with progress.bar(name):
        whole = scaled(partial(piece.cost, plan.stage), axes, arms=arms, measure=piece.measure)
    chief = [axis.name for axis, _ in axes if "." in axis.name and whole.parts[axis.name] > whole.expected[0] / 2]
    notes += [f"{setting} decides on most of it" for setting in chief]
    return Estimate(
        name,
        plan.plan,
        figures,
        seconds=float(whole.expected[0]),
        at_most=float(whole.most[0]) if any(amount.most is not None for _, amount in axes) else None,
        cpu_seconds=float(whole.expected[1]),
        peak_memory_bytes=whole.peak,
        notes=(*notes, *([_SPARED] if plan.spared else [])),
    )


def _unmeasured(plan: Planned) -> Estimate:
    """Of a stage that is up to date what it took."""
    if plan.plan is Plan.UP_TO_DATE:
        return _of_cost(plan, plan.manifest, {})
    return Estimate(plan.stage.name, plan.plan, notes=(_UNESTIMATED, *([_SPARED] if plan.spared else [])))


def _of_cost(plan: Planned, cost: Cost | Manifest | None, figures: dict[str, int]) -> Estimate:
    if cost is None:
        raise ValueError(f"{plan.stage.name} is said to be up to date without a manifest")
    return Estimate(
        plan.stage.name,
        plan.plan,
        figures,
        seconds=cost.wall_seconds,
        cpu_seconds=cost.cpu_seconds,
        peak_memory_bytes=cost.peak_memory_bytes,
    )


def _stand_in(piece: Piece, stage: Stage, run_dir: Path) -> None:
    """What later stages read of one that is up to date."""
    if stage.name in _FITTING:
        (piece.folder / stage.name).symlink_to((run_dir / stage.name).absolute())
    else:
        piece.cost(stage, {axis.name: axis.least for axis, _ in axes_of(stage, piece.config, piece.counts)})


def _device() -> str:
    import torch

    device = compute_device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
