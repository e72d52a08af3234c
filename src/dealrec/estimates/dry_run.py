"""The estimate of a run: which stages would run, and what a small run of each comes to, scaled."""

import errno
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from dealrec.config import Config
from dealrec.devices import compute_device
from dealrec.engine.leftovers import finished_shards, finished_units
from dealrec.engine.manifest import Manifest, thread_count
from dealrec.engine.measure import Cost
from dealrec.engine.runner import State, refuse_foreign_directory, states
from dealrec.engine.stage import Progress, Silent
from dealrec.errors import DealrecError, RunDirectoryError
from dealrec.estimates.piece import Piece
from dealrec.estimates.results import Estimate, Estimates, Plan
from dealrec.estimates.scales import OF_ARMS, SCALES, scaled, work_of
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
    start, progress, measured = time.perf_counter(), progress or Silent(), list[Estimate]()
    try:
        _refuse_unusable(run_dir)
        plans = list(planned(config, run_dir, stages or stages_until(config, until)))
    except OSError as error:
        raise RunDirectoryError(f"Cannot use {run_dir}: {error.strerror}", "Choose another --run-dir.") from error
    with TemporaryDirectory(prefix="dealrec-") as name:
        piece = Piece(config, Path(name))
        for stage, plan, finished in plans:
            if not plan.past:
                plan = _measured(piece, stage, plan, finished, progress)
            elif stage.name in ("data", *SCALES):
                piece.keep(stage, run_dir)
            measured.append(plan)
    import torch  # only now, since the first stage that needs it pays for it, here as in a run

    device = compute_device()
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Estimates(measured, time.perf_counter() - start, device_name, thread_count(), tuple(piece.warnings))


def _refuse_unusable(run_dir: Path) -> None:
    """Raise RunDirectoryError for a folder of something else, OSError where none can be made or written."""
    refuse_foreign_directory(run_dir)
    parent = next(folder for folder in (run_dir, *run_dir.absolute().parents) if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        code = errno.EACCES if parent.is_dir() else errno.ENOTDIR
        raise OSError(code, os.strerror(code))


def planned(config: Config, run_dir: Path, stages: Sequence[Stage]) -> Iterator[tuple[Stage, Estimate, frozenset[str]]]:
    """Each stage with what a run would do about it, at what it took where it is up to date; and what it has finished.

    What a stage reads is known only while all stages before it are up to date. Of one after those it is said that it
    will run, and no units or shards are looked for.
    """
    complete: dict[str, Manifest] = {}
    for stage, state, manifest in states(config, run_dir, stages):
        if state is State.COMPLETE and manifest is not None:
            complete[stage.name] = manifest
            yield stage, _at_cost(Estimate(stage.name, Plan.UP_TO_DATE), manifest), frozenset()
            continue
        finished = frozenset[str]()
        if stage is stages[len(complete)]:
            with suppress(DealrecError):  # a file of the user's that is gone
                parts = finished_units if stage.name in OF_ARMS else finished_shards
                finished = parts(stage, config, run_dir, complete=complete)
        plan = Plan.RUNNING if state is State.RUNNING else Plan.RESUMES if finished else Plan.WILL_RUN
        yield stage, Estimate(stage.name, plan), finished


def _measured(
    piece: Piece, stage: Stage, estimate: Estimate, finished: Collection[str], progress: Progress
) -> Estimate:
    """With what small runs of the stage come to, whose outcome later ones read."""
    if stage.name == "data":
        progress.say("reading the data ...")
        return _at_cost(estimate, piece.run(stage, {}))
    if stage.name not in SCALES:
        return replace(estimate, notes=("not estimated: a matter of seconds",))
    progress.say(f"measuring a piece of {stage.name} ...")
    data = piece.outcomes["data"]
    work = work_of(stage, piece.config, data, finished=finished, mean_size=piece.mean_size())
    with progress.bar(stage.name):
        cost = scaled(partial(piece.run, stage), work)
    at_most = None if work.most is None else cost.wall_seconds * work.most
    return _at_cost(replace(estimate, figures=work.figures, at_most=at_most, notes=work.notes), cost)


def _at_cost(estimate: Estimate, cost: Cost | Manifest) -> Estimate:
    wall, cpu, peak = cost.wall_seconds, cost.cpu_seconds, cost.peak_memory_bytes
    return replace(estimate, seconds=wall, cpu_seconds=cpu, peak_memory_bytes=peak)
