"""The estimate of a run: its data stage as a whole, every other stage in small, several times, and what follows from that."""

import errno
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from dealrec.config import Config
from dealrec.errors import RunDirectoryError
from dealrec.pipeline.estimates.piece import Piece
from dealrec.pipeline.estimates.plans import Plan, Planned, planned
from dealrec.pipeline.estimates.results import Estimate, Estimates
from dealrec.pipeline.estimates.scales import ARMS, arms_of, axes_of
from dealrec.pipeline.estimates.scaling import scaled
from dealrec.pipeline.graph import stages_until
from dealrec.pipeline.manifest import Manifest, thread_count
from dealrec.pipeline.measure import Cost, Meter
from dealrec.pipeline.runner import refuse_foreign_directory
from dealrec.pipeline.stage import Context, Progress, Silent, Stage

# Tables by sample, and a model over the whole catalogue: they fit whatever small runs read.
_TAKEN = ("surrogate", "influence", "effort")
_SPARED = "it is skipped where what it reads comes out as it was"


def estimate(config: Config, run_dir: Path, *, until: str = "report", progress: Progress | None = None) -> Estimates:
    """What `run` would do in `run_dir` up to the stage `until`, and what it would cost on this machine.

    Nothing is written to `run_dir`, which need not exist. Stages that are up to date are not measured. The others are
    run in small, one on what came out of the other, at sizes that differ in one thing at a time (`scales`). Raises
    DealrecError as `run` would before its first costly stage, and where a small run is refused.
    """
    start, progress = time.perf_counter(), progress or Silent()
    plans = _plans(config, run_dir, stages_until(until))
    with TemporaryDirectory(prefix="dealrec-") as name:
        folder, warnings = Path(name), list[str]()
        estimates = [_data(config, folder, run_dir, plans[0], progress, warnings)]
        piece, needed = Piece(config, folder), _needed(plans)
        for plan in plans[1:]:
            if plan.plan is not Plan.UP_TO_DATE:
                estimates.append(_estimate(piece, plan, progress))
                continue
            estimates.append(_past(plan))
            if plan.stage.name in needed and plan.stage.name in _TAKEN:
                (folder / plan.stage.name).symlink_to((run_dir / plan.stage.name).absolute())
            elif plan.stage.name in needed:
                piece.cost(plan.stage, {axis.name: axis.least for axis, _ in axes_of(plan.stage, config, piece.counts)})
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


def _needed(plans: Sequence[Planned]) -> set[str]:
    """Names of the stages that those which are measured read, or that these read."""
    needed: set[str] = set()
    for plan in reversed(plans):
        measured = plan.plan is not Plan.UP_TO_DATE and not plan.stage.reads_manifests
        if measured or plan.stage.name in needed and plan.stage.name not in _TAKEN:
            needed |= {name.partition("/")[0] for name in plan.stage.inputs}
    return needed


def _data(
    config: Config, folder: Path, run_dir: Path, plan: Planned, progress: Progress, warnings: list[str]
) -> Estimate:
    """The data stage is run as a whole."""
    out = folder / plan.stage.name
    if plan.plan is Plan.UP_TO_DATE:
        out.symlink_to((run_dir / plan.stage.name).absolute())
        plan.stage.after(config, folder)
        return _past(plan)
    progress.say("reading the data ...")
    out.mkdir()
    context = Context(plan.stage.name, config, Silent(), folder, out, plan.stage.inputs, warnings=warnings)
    meter = Meter()
    plan.stage.run(context)
    cost = meter.read()
    plan.stage.after(config, folder)
    figures = {name: value for name, value in context.facts.items() if name in ("items", "train_samples")}
    return _as_estimate(plan, cost, **figures)


def _past(plan: Planned) -> Estimate:
    """Of a stage that is up to date: what it took."""
    if plan.manifest is None:
        raise ValueError(f"{plan.stage.name} is said to be up to date without a manifest")
    return _as_estimate(plan, plan.manifest)


def _as_estimate(plan: Planned, cost: Cost | Manifest, **figures: int) -> Estimate:
    return Estimate(
        plan.stage.name,
        plan.plan,
        figures,
        seconds=cost.wall_seconds,
        cpu_seconds=cost.cpu_seconds,
        peak_memory_bytes=cost.peak_memory_bytes,
    )


def _estimate(piece: Piece, plan: Planned, progress: Progress) -> Estimate:
    """From small runs of the stage; the outcome of the last of them is left for later stages."""
    stage, spared = plan.stage, (_SPARED,) if plan.spared else ()
    if stage.reads_manifests:
        return Estimate(stage.name, plan.plan, notes=("not estimated: one page, a matter of seconds", *spared))
    progress.say(f"measuring a piece of {stage.name} ...")
    axes = list(axes_of(stage, piece.config, piece.counts, shards=plan.shards))
    arms = [arm for arm in arms_of(stage, piece.config) if arm not in plan.shards]
    of_small = len(arms) / ARMS[stage.name] if stage.name in ARMS else 1.0
    with progress.bar(stage.name):
        whole = scaled(partial(piece.cost, stage), axes, arms=of_small, measure=piece.measure)
    figures = {"arms": len(arms)} if stage.name in ARMS else {}
    notes = [amount.note for _, amount in axes if amount.note]
    notes += [
        f"{axis.name} decides most of it (now {amount.limit:,})"
        for axis, amount in axes
        if len(axes) > 2 and whole.parts[axis.name] > whole.expected[0] / 2
    ]
    return Estimate(
        stage.name,
        plan.plan,
        figures | {name: value for _, amount in axes for name, value in amount.figures.items()},
        seconds=float(whole.expected[0]),
        at_most=float(whole.most[0]) if any(amount.most is not None for _, amount in axes) else None,
        cpu_seconds=float(whole.expected[1]),
        peak_memory_bytes=whole.peak,
        notes=(*notes, *spared),
    )


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
