"""The estimate of a run: the data stage is run into a temporary folder, then pieces of the costly stages."""

import errno
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from dealrec.config import Config
from dealrec.engine.manifest import thread_count
from dealrec.engine.measure import Meter
from dealrec.engine.runner import refuse_foreign_directory
from dealrec.engine.stage import Progress, Silent, Stage
from dealrec.errors import RunDirectoryError
from dealrec.estimates.bench import Bench
from dealrec.estimates.planning import Plan, Planned, planned
from dealrec.estimates.results import Estimate, Estimates, Expected
from dealrec.stages.feasibility import check_feasible
from dealrec.stages.pipeline import stages_until

Probe = Callable[[Bench], Expected]

_QUICK = ("select", "export")  # run as a whole, on stand-ins
_SPARED = "it is skipped where what it reads comes out as it was"
_READ_WARM = ("effort", "export", "finetune", "evaluate")


def estimate(config: Config, run_dir: Path, *, until: str = "report", progress: Progress | None = None) -> Estimates:
    """What `run` would do in `run_dir` up to the stage `until`, and what it would cost on this machine.

    Nothing is written to `run_dir`, which need not exist. Stages that are up to date are not measured. What an earlier
    stage would leave, an untrained stand-in of the same shape or a random draw of the same size replaces: times do not
    depend on weights. Raises DealrecError as `run` would before its first costly stage.
    """
    start = time.perf_counter()
    plans = _plans(config, run_dir, stages_until(until))
    with TemporaryDirectory(prefix="dealrec-") as folder:
        shards = {one.stage.name: one.shards for one in plans}
        bench = Bench(config, Path(folder), progress or Silent(), shards=shards)
        for one in plans:
            if one.plan is Plan.UP_TO_DATE:
                bench.take(one.stage.name, run_dir)
        found = [_data(bench, plans[0])]
        bench.warnings += check_feasible(config, bench.folder)
        found += [_estimate(bench, one) for one in plans[1:]]
        warnings = tuple(bench.warnings)
    return Estimates(found, time.perf_counter() - start, _device(), thread_count(), warnings)


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


def _data(bench: Bench, plan: Planned) -> Estimate:
    """The data stage is run as a whole."""
    if plan.plan is Plan.UP_TO_DATE:
        return _past(plan)
    bench.progress.say("reading the data ...")
    context = bench.context("data")
    meter = Meter()
    plan.stage.run(context)
    cost = meter.read()
    context.out.rename(bench.folder / "data")
    bench.warnings += context.warnings
    figures = {name: value for name, value in context.facts.items() if name in ("items", "train_samples")}
    return Estimate(figures, cost.wall_seconds, stage="data", plan=plan.plan, peak_memory_bytes=cost.peak_memory_bytes)


def _estimate(bench: Bench, plan: Planned) -> Estimate:
    name = plan.stage.name
    if plan.plan is Plan.UP_TO_DATE:
        return _past(plan)
    if _measured(bench.config, name):
        bench.progress.say(f"measuring a piece of {name} ...")
    with bench.progress.bar(name):
        start = time.perf_counter()
        probe = _probe(bench.config, name)
        importing = time.perf_counter() - start  # a run does it once too, in the stage that first needs it
        _prepare(bench, name)
        meter = Meter()
        _reset_gpu_peak()
        expected = probe(bench)
    if plan.spared:
        expected = replace(expected, notes=(*expected.notes, _SPARED))
    if expected.seconds is None:
        return Estimate(**vars(expected), stage=name, plan=plan.plan)
    peak = (_gpu_peak() or meter.read().peak_memory_bytes) + expected.added_memory
    at_most = None if expected.at_most is None else expected.at_most + importing
    expected = replace(expected, seconds=expected.seconds + importing, at_most=at_most)
    return Estimate(**vars(expected), stage=name, plan=plan.plan, peak_memory_bytes=peak)


def _measured(config: Config, name: str) -> bool:
    """Whether there is anything of the stage to measure."""
    return name != "report" and (name != "warmstart" or bool(config.data.warm_share))


def _prepare(bench: Bench, name: str) -> None:
    """Make what stands in for what the probe of a stage reads."""
    if name in ("effort", "select", "export", "finetune") and not bench.has("select"):
        bench.stand_in_selection()
    if bench.config.recommender == "tiger" and name in _READ_WARM and not bench.has("warmstart"):
        from dealrec.estimates.tiger import stand_in

        stand_in(bench)


def _past(plan: Planned) -> Estimate:
    """Of a stage that is up to date: what it took."""
    manifest = plan.manifest
    if manifest is None:
        raise ValueError(f"{plan.stage.name} is said to be up to date without a manifest")
    return Estimate(
        {},
        manifest.wall_seconds,
        stage=plan.stage.name,
        plan=plan.plan,
        peak_memory_bytes=manifest.peak_memory_bytes,
    )


def _probe(config: Config, name: str) -> Probe:
    """What measures a stage; importing it imports what the stage needs."""
    if name in _QUICK:
        return lambda bench: Expected({}, bench.run(name))
    if name == "report":
        return lambda _bench: Expected({}, None, notes=("not estimated: one page, a matter of seconds",))
    if name == "warmstart" and not config.data.warm_share:
        return lambda _bench: Expected({"samples": 0}, 0.0, notes=("there is none: data.warm_share is 0",))
    module = "surrogates" if name in ("surrogate", "influence") else "recommenders"
    if name == "warmstart" and config.recommender == "tiger":
        module = "tiger"
    probe: Probe = getattr(import_module(f"dealrec.estimates.{module}"), name)
    return probe


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _reset_gpu_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _gpu_peak() -> int:
    """Bytes of tensors at their peak; 0 without a GPU."""
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
