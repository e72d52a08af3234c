"""The estimate of a run: what a small run of each stage comes to, scaled."""

import errno
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from dealrec.config import Config
from dealrec.devices import compute_device
from dealrec.engine.manifest import Manifest, thread_count
from dealrec.engine.measure import Cost
from dealrec.engine.runner import refuse_foreign_directory
from dealrec.engine.stage import Progress, Silent
from dealrec.errors import RunDirectoryError
from dealrec.estimates.piece import Piece
from dealrec.estimates.plans import Planned, planned
from dealrec.estimates.results import Estimate, Estimates
from dealrec.estimates.scales import SCALES, work_of
from dealrec.estimates.scaling import scaled
from dealrec.stages.context import Stage
from dealrec.stages.pipeline import stages_until


def estimate(
    config: Config,
    run_dir: Path,
    *,
    until: str = "report",
    stages: Sequence[Stage] | None = None,
    progress: Progress | None = None,
) -> Estimates:
    """What `run` would do in `run_dir` up to the stage `until`, and what it would cost on this machine.

    stages: in the place of those up to `until`. Nothing is written to `run_dir`, which need not exist. Stages that are
    up to date are not measured. Raises DealrecError as `run` would before its first costly stage, and where a stage
    refuses to run in small.
    """
    start, estimates = time.perf_counter(), list[Estimate]()
    plans = _plans(config, run_dir, stages or stages_until(config, until))
    with TemporaryDirectory(prefix="dealrec-") as name:
        piece = Piece(config, Path(name))
        for plan in plans:
            estimates.append(_estimate(piece, plan, run_dir, progress or Silent()))
    import torch  # only now, since the first stage that needs it pays for it, here as in a run

    device = compute_device()
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Estimates(estimates, time.perf_counter() - start, device_name, thread_count(), tuple(piece.warnings))


def _plans(config: Config, run_dir: Path, stages: Sequence[Stage]) -> list[Planned]:
    """What a run would do; raises RunDirectoryError where it could not work in the run directory."""
    try:
        refuse_foreign_directory(run_dir)
        parent = next(folder for folder in (run_dir, *run_dir.absolute().parents) if folder.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            code = errno.EACCES if parent.is_dir() else errno.ENOTDIR
            raise OSError(code, os.strerror(code))
        return list(planned(config, run_dir, stages))
    except OSError as error:
        raise RunDirectoryError(f"Cannot use {run_dir}: {error.strerror}", "Choose another --run-dir.") from error


def _estimate(piece: Piece, plan: Planned, run_dir: Path, progress: Progress) -> Estimate:
    """Of a stage: what it took where it is up to date, else from small runs, whose outcome later ones read."""
    stage, name = plan.stage, plan.stage.name
    estimate = Estimate(name, plan.plan)
    if plan.manifest:
        if name in ("data", *SCALES):
            piece.keep(stage, run_dir)
        return _at_cost(estimate, plan.manifest)
    if name == "data":
        progress.say("reading the data ...")
        return _at_cost(estimate, piece.run(stage, {}))
    if name not in SCALES:
        return replace(estimate, notes=("not estimated: a matter of seconds",))
    progress.say(f"measuring a piece of {name} ...")
    work = work_of(stage, piece.config, piece.outcomes["data"], finished=plan.finished)
    with progress.bar(name):
        (wall, cpu), peak = scaled(partial(piece.run, stage), work.axes, repeats=work.repeats)
    return replace(
        _at_cost(estimate, Cost(float(wall), float(cpu), peak)),
        figures=work.figures,
        at_most=None if work.most is None else float(wall) * work.most,
        notes=tuple(work.notes),
    )


def _at_cost(estimate: Estimate, cost: Cost | Manifest) -> Estimate:
    wall, cpu, peak = cost.wall_seconds, cost.cpu_seconds, cost.peak_memory_bytes
    return replace(estimate, seconds=wall, cpu_seconds=cpu, peak_memory_bytes=peak)
