"""What of the device goes into a run: its fingerprints, its memory, its determinism, and models that go in time."""

import gc
import hashlib
import json
import os
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dealrec.config import Config
from dealrec.config.files import load
from dealrec.engine import launching, measure
from dealrec.engine.launching import on_devices
from dealrec.engine.measure import Meter, note_peak, peak_memory_of
from dealrec.engine.runner import State, run, states
from dealrec.engine.stage import Context, Silent, Stage
from dealrec.engine.workers import in_parallel
from dealrec.errors import ConfigError
from dealrec.recommenders.bigrec import model as bigrec_model
from dealrec.stages.feasibility import check_processes
from dealrec.stages.pipeline import stages as declared
from dealrec.stages.pipeline import stages_until

STAGES = declared(Config.model_validate({"select": {"method": "dealrec"}, "pool": {"method": "influence-strata"}}))

Gpus = Callable[..., None]
GIB = 2**30


def device_of(stage: Stage, config: Config) -> list[str]:
    return list(stage.machine(config))


@pytest.mark.parametrize(
    ("sections", "dtype"),
    [
        ({}, "bfloat16"),
        ({"llm": {"dtype": "float32"}}, "float32"),
        ({"finetune": {"full": True}}, "float32"),
        ({"recommender": "tiger", "data": {"warm_share": 0.5}}, "float32"),
    ],
)
def test_fingerprints_hold_the_device_where_it_can_change_the_outcome(
    write_config: Callable[..., Path], gpus: Gpus, sections: dict[str, Any], dtype: str
) -> None:
    config = load(write_config(**sections))
    assert {stage.name: device_of(stage, config) for stage in STAGES} == {stage.name: [] for stage in STAGES}
    gpus(1)
    told = {stage.name: device_of(stage, config) for stage in STAGES}
    assert told["surrogate"] == told["influence"] == ["device: cuda float32"]
    for name in ("warmstart", "effort", "finetune", "evaluate"):
        assert told[name] == [f"device: cuda {dtype}"]
    assert told["data"] == told["select"] == told["report"] == []


@pytest.mark.slow
def test_what_a_cpu_has_begun_is_out_of_date_on_a_gpu_but_can_be_read_there(
    write_config: Callable[..., Path], tmp_path: Path, gpus: Gpus
) -> None:
    config = load(write_config())
    stages = stages_until(config, "surrogate")
    run(config, tmp_path / "run", stages, progress=Silent())
    assert [state for _, state, _ in states(config, tmp_path / "run", stages)] == [State.COMPLETE, State.COMPLETE]
    gpus(1)
    assert [state for _, state, _ in states(config, tmp_path / "run", stages)] == [State.COMPLETE, State.OUTDATED]
    elsewhere = states(config, tmp_path / "run", stages, anywhere=True)
    assert [state for _, state, _ in elsewhere] == [State.COMPLETE, State.COMPLETE]


class Gpu:
    """The memory statistics of a GPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.peak = 0
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self.reset)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", self.read)

    def reset(self, device: torch.device) -> None:
        assert device == torch.device("cuda", 0)
        self.peak = self.now

    def read(self, device: torch.device) -> int:
        assert device == torch.device("cuda", 0)
        return self.peak

    def hold(self, size: int) -> None:
        self.now = size
        self.peak = max(self.peak, size)


def test_the_memory_of_a_stage_is_that_of_the_device_that_computed(
    gpus: Gpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpus(1)
    gpu = Gpu(monkeypatch)

    def on_gpu(context: Context) -> None:
        gpu.hold(100 * GIB)
        gpu.hold(3 * GIB)
        context.facts["device"] = "cuda:0"

    def smaller(context: Context) -> None:
        gpu.hold(5 * GIB)
        gpu.hold(0)
        context.facts["device"] = "cuda:0"

    stages = [Stage("large", 1, on_gpu), Stage("small", 1, smaller), Stage("host", 1, lambda _context: None)]
    manifests = [outcome.manifest for outcome in run(Config(), tmp_path / "run", stages, progress=Silent())]
    large, small, host = (manifest.peak_memory_bytes for manifest in manifests)
    assert (large, small) == (100 * GIB, 5 * GIB)
    assert host == pytest.approx(measure._peak_memory(), rel=0.5)
    assert [manifest.device for manifest in manifests] == ["cuda:0", "cuda:0", "cpu"]


def test_a_measured_batch_does_not_hide_an_earlier_peak(gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(1)
    gpu = Gpu(monkeypatch)
    meter = Meter()
    gpu.hold(9 * GIB)
    gpu.hold(GIB)
    assert peak_memory_of(lambda: gpu.hold(2 * GIB), device=torch.device("cuda", 0)) == 2 * GIB
    assert meter.read(device="cuda:0").peak_memory_bytes == 9 * GIB


def test_of_several_processes_the_largest_peak_counts(gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that started them has nothing on the GPU, and its own memory is not the device's."""
    gpus(2)
    meter = Meter()
    note_peak(1000)
    note_peak(3000)
    assert meter.read(device="2 x cuda").peak_memory_bytes == 3000


def grown(context: Context, out: Path) -> None:
    """A job that takes memory; each process says what it learnt."""
    held = bytearray(os.urandom(1)) * (600 * 2**20)
    context.facts |= {"held": len(held), "device": "cpu", "rank": os.environ["RANK"]}


@pytest.mark.slow
def test_facts_and_memory_of_several_processes_come_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    )
    context = Context("test", Config(), Silent(), tmp_path, tmp_path, ())
    meter = Meter()
    on_devices(context, grown, tmp_path, processes=2)
    assert context.facts == {"held": 600 * 2**20, "device": "2 x cpu", "rank": "0"}
    assert max(measure._other_peaks) > 600 * 2**20
    assert meter.read(device="2 x cpu").peak_memory_bytes >= max(measure._other_peaks)


@pytest.mark.parametrize("count", [0, 4])
def test_each_rank_takes_its_own_device_before_anything_is_loaded(
    count: int, gpus: Gpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpus(count)
    order: list[Any] = []
    context = Context("test", Config(), Silent(), tmp_path, tmp_path, ())
    settings = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "3", launching.PROCESS_COUNT: "4"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "set_device", order.append)
    monkeypatch.setattr(launching, "end_unless", lambda _wanted: None)
    monkeypatch.setattr(pickle, "loads", lambda _job: (context, lambda *_: order.append("job"), tmp_path))
    monkeypatch.setattr(sys, "argv", ["launching", str(tmp_path), "0", hashlib.sha256(b"").hexdigest()])
    (tmp_path / launching.JOB).touch()
    launching.main()
    assert order == [*([torch.device("cuda", 3)] if count else []), "job"]
    assert (tmp_path / launching.OUTCOME.format(3)).exists()


def test_processes_on_a_machine_with_gpus_are_not_told_to_take_the_cpu(
    gpus: Gpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: dict[str, str] = {}

    class Stopped(Exception):
        pass

    def started(_command: list[str], *, env: dict[str, str], **_options: Any) -> None:
        told.update(env)
        raise Stopped

    monkeypatch.setattr(subprocess, "Popen", started)
    context = Context("test", Config(), Silent(), tmp_path, tmp_path, ())
    for count, wanted in ((0, "true"), (2, None)):
        told.clear()
        gpus(count)
        with pytest.raises(Stopped):
            on_devices(context, grown, tmp_path, processes=2)
        assert told.get("ACCELERATE_USE_CPU") == wanted


def deterministic(context: Context, out: Path) -> None:
    """A job that notes what torch was set to."""
    mode = torch.get_deterministic_debug_mode()
    (out / "mode.json").write_text(json.dumps([mode, os.environ.get("CUBLAS_WORKSPACE_CONFIG")]))


@pytest.mark.parametrize(("count", "wanted"), [(0, [0, None]), (1, [1, ":4096:8"])])
def test_stages_and_their_jobs_are_deterministic_on_a_gpu_and_nothing_else_is(
    count: int, wanted: list[Any], gpus: Gpus, tmp_path: Path
) -> None:
    gpus(count)
    stage = Stage("noting", 1, lambda context: deterministic(context, context.out))
    run(Config(), tmp_path / "run", [stage], progress=Silent())
    assert json.loads((tmp_path / "run" / "noting" / "mode.json").read_text()) == wanted
    context = Context("test", Config(), Silent(), tmp_path, tmp_path, ())
    in_parallel(context, "jobs", {"one": deterministic}, workers=1)
    assert json.loads((context.shard("one") / "mode.json").read_text()) == wanted
    assert torch.get_deterministic_debug_mode() == 0
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


@pytest.mark.slow
def test_no_model_outlives_its_arm(
    write_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cycles are left to whoever collects them: only what the stages do themselves counts. Then the cache is freed."""
    loaded: list[weakref.ref[Any]] = []
    emptied_of: list[int] = []  # models that are alive when it is, or -1 where one has been loaded since
    alive: dict[str, tuple[int, int]] = {}
    load_model, unit = bigrec_model.load_model, Context.unit

    def living() -> int:
        return sum(model() is not None for model in loaded)

    def watched(*args: Any, **options: Any) -> Any:
        model = load_model(*args, **options)
        if options.get("empty"):  # of the checks, without weights
            return model
        loaded.append(weakref.ref(model))
        emptied_of.append(-1)
        return model

    def counted(self: Context, name: str, fill: Callable[[Path], None], **options: Any) -> Path:
        alive[f"{self.name} {name}"] = living(), emptied_of[-1]
        return unit(self, name, fill, **options)

    monkeypatch.setattr(bigrec_model, "load_model", watched)
    monkeypatch.setattr(Context, "unit", counted)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied_of.append(living()))
    config = load(write_config(select={"random_arms": 1}))
    gc.disable()
    try:
        run(config, tmp_path / "run", STAGES, progress=Silent())
    finally:
        gc.enable()
    arms = ("finetune selected", "finetune random-0", "evaluate base", "evaluate selected", "evaluate random-0")
    assert alive == dict.fromkeys(arms, (0, 0))
    assert len(loaded) == 1 + 2 * 2 + 3  # effort; each training and its proof; each evaluation


def test_more_processes_than_gpus_are_refused(gpus: Gpus) -> None:
    several = {"finetune": {"batch_size": 16, "micro_batch_size": 2, "processes": 4}}
    config = Config.model_validate(several)
    check_processes(config)
    gpus(4)
    check_processes(config)
    gpus(2)
    with pytest.raises(ConfigError, match=r"finetune\.processes is 4, but there are 2 GPUs"):
        check_processes(config)
