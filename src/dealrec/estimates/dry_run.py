"""The estimate of a run: its data stage is run as a whole, the others several times in small, and scaled."""

import errno
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from dealrec.columns import OF_RECOMMENDER, OF_SURROGATE
from dealrec.config import Config
from dealrec.devices import compute_device
from dealrec.engine.manifest import Manifest, thread_count
from dealrec.engine.measure import Cost, Meter
from dealrec.engine.runner import refuse_foreign_directory
from dealrec.engine.stage import Progress, Silent
from dealrec.errors import RunDirectoryError
from dealrec.estimates.piece import Piece
from dealrec.estimates.plans import Planned, planned
from dealrec.estimates.results import Estimate, Estimates
from dealrec.estimates.scales import ARMS, arms_of, axes_of
from dealrec.estimates.scaling import scaled
from dealrec.stages.context import Context, Stage
from dealrec.stages.feasibility import check_feasible
from dealrec.stages.pipeline import stages_until

# Tables by sample, and a model over the whole catalogue: what has been computed of these fits small runs as it is.
FITTING = ("surrogate", *OF_SURROGATE, *OF_RECOMMENDER)
STATISTICS = "compare"  # it computes with one number of each user, so that random ones do as well


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
    start, progress, warnings = time.perf_counter(), progress or Silent(), list[str]()
    plans = _plans(config, run_dir, stages or stages_until(config, until))
    with TemporaryDirectory(prefix="dealrec-") as name:
        folder = Path(name)
        estimates = [_data(config, folder, run_dir, plans[0], progress, warnings)]
        piece = Piece(config, folder)
        for place, plan in enumerate(plans[1:], start=1):
            estimates.append(_in_small(piece, plan, progress))
            if plan.manifest and not all(later.manifest or later.stage.reads_manifests for later in plans[place:]):
                if plan.stage.name in FITTING:
                    (folder / plan.stage.name).symlink_to((run_dir / plan.stage.name).absolute())
                else:
                    axes = axes_of(plan.stage, config, piece.counts)
                    piece.cost(plan.stage, {axis.name: axis.least for axis in axes})

    import torch  # only now, since the first stage that needs it pays for it, here as in a run

    device = compute_device()
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Estimates(estimates, time.perf_counter() - start, device_name, thread_count(), tuple(warnings))


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


def _data(
    config: Config, folder: Path, run_dir: Path, plan: Planned, progress: Progress, warnings: list[str]
) -> Estimate:
    """Of the data stage; all that comes out of it is in the folder."""
    name = plan.stage.name
    if plan.manifest:
        (folder / name).symlink_to((run_dir / name).absolute())
        data = _of_cost(plan, plan.manifest)
    else:
        progress.say("reading the data ...")
        (folder / name).mkdir()
        context = Context(name, config, Silent(), folder, folder / name, plan.stage.inputs, warnings=warnings)
        meter = Meter()
        plan.stage.run(context)
        figures = {key: value for key, value in context.facts.items() if key in ("items", "train_samples")}
        data = _of_cost(plan, meter.read(), figures)
    warnings += check_feasible(config, folder)
    return data


def _in_small(piece: Piece, plan: Planned, progress: Progress) -> Estimate:
    """Of a stage after the data stage, from small runs of it; the outcome of the last of them is left for later stages.

    Where it is up to date, what it took; none of the page that reads what the others took.
    """
    name, arms = plan.stage.name, 1.0
    if plan.manifest:
        return _of_cost(plan, plan.manifest)
    if plan.stage.reads_manifests:
        return Estimate(name, plan.plan, notes=("not estimated: one page, a matter of seconds", *plan.notes))
    progress.say(f"measuring a piece of {name} ...")
    axes = list(axes_of(plan.stage, piece.config, piece.counts, shards=plan.shards))
    figures = {key: value for axis in axes for key, value in axis.figures.items()}
    if name in ARMS:
        missing = [n for arm, n in arms_of(name, piece.config, piece.counts).items() if arm not in plan.shards]
        figures["arms"] = len(missing)
        arms = sum(missing) / ARMS[name]
    run = partial(piece.cost, plan.stage)
    if name == STATISTICS:
        piece.stand_in_users()
        run = partial(run, whole=True)
    with progress.bar(name):
        expected, most, peak = scaled(run, axes, arms=arms, measure=piece.measure)
    return Estimate(
        name,
        plan.plan,
        figures,
        seconds=float(expected[0]),
        at_most=float(most[0]) if any(axis.most is not None for axis in axes) else None,
        cpu_seconds=float(expected[1]),
        peak_memory_bytes=peak,
        notes=(*(axis.note for axis in axes if axis.note), *plan.notes),
    )


def _of_cost(plan: Planned, cost: Cost | Manifest, figures: dict[str, int] | None = None) -> Estimate:
    return Estimate(
        plan.stage.name,
        plan.plan,
        figures or {},
        seconds=cost.wall_seconds,
        cpu_seconds=cost.cpu_seconds,
        peak_memory_bytes=cost.peak_memory_bytes,
    )
