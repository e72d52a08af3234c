"""One training in two processes: the same outcome as in one, and errors that come through."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dealrec.config import Config
from dealrec.config.files import load
from dealrec.engine.launching import on_devices
from dealrec.engine.runner import run
from dealrec.engine.stage import Context, Silent
from dealrec.engine.workers import Job
from dealrec.errors import ConfigError, DealrecError
from dealrec.stages import finetune
from dealrec.stages.pipeline import stages_until
from tests.conftest import write_small_config
from tests.stages.test_recommenders import SMALL_TIGER

pytestmark = pytest.mark.slow

TRAINED = {"batch_size": 4, "micro_batch_size": 2, "learning_rate": 0.1, "epochs": 2, "checkpoint_every": "epoch"}
PYTHONPATH = os.pathsep.join(
    [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
)  # for jobs of the tests
BIGREC: dict[str, Any] = {"llm": {"lora": {"r": 2, "dropout": 0.0}}}
TIGER = {**SMALL_TIGER, "t5": {**SMALL_TIGER["t5"], "dropout": 0.0}}
# Trainings that each take one launch of processes in a run; here all of them share one.
TRAININGS: dict[str, dict[str, Any]] = {
    "2 samples in the last step": {**BIGREC, "select": {"budget": 6}},
    "4 samples in the last step": {**BIGREC, "select": {"budget": 8}},
    "7 validation samples": {
        **BIGREC,
        "select": {"budget": 5},
        "finetune": {"patience": 2, "validation_samples": 7, "epochs": 3},
    },
    "tiger": {
        "recommender": "tiger",
        "tiger": TIGER,
        "data": {"warm_share": 0.5},
        "select": {"budget": 5},
        "finetune": {"learning_rate": 1e-3},
    },
}
JobArguments = tuple[Context, Job, Path]


@dataclass(frozen=True)
class Pair:
    """The folders of one training in one process and in two, and that of the run in which both were."""

    alone: Path
    together: Path
    run_dir: Path

    def weights(self, name: str) -> list[dict[str, torch.Tensor]]:
        return [load_file(folder / name) for folder in (self.alone, self.together)]

    def facts(self) -> list[dict[str, Any]]:
        return [json.loads((folder / "training.json").read_text()) for folder in (self.alone, self.together)]


def one_after_the_other(context: Context, out: Path, *, jobs: list[JobArguments]) -> None:
    """The trainings of several runs, by the same processes."""
    for of_run, job, folder in jobs:
        job(of_run, folder)


class Postponed(Exception):
    """Instead of the start of several processes."""


def postponed(path: Path, run_dir: Path, out: Path) -> JobArguments:
    """What the fine-tuning of a run would have had several processes do."""
    held: list[tuple[Context, Job]] = []

    def hold(context: Context, job: Job, _out: Path, *, processes: int) -> None:
        held.append((context, job))
        raise Postponed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "on_devices", hold)
        with pytest.raises(Postponed):
            run(load(path), run_dir, stages_until(load(path), "finetune"), progress=Silent())
    out.mkdir()
    ((context, job),) = held
    return replace(context, progress=Silent()), job, out


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_llm: Path, text_encoder: Path) -> dict[str, Pair]:
    pairs, jobs = {}, []
    for name, sections in TRAININGS.items():
        folder = tmp_path_factory.mktemp("launched")
        sections = {**sections, "select": {**sections["select"], "random_arms": 0}}
        if "tiger" in sections:
            sections["tiger"] = {**sections["tiger"], "text_encoder": str(text_encoder)}
        settings = TRAINED | sections.get("finetune", {})
        for processes in (1, 2):
            path = write_small_config(folder, tiny_llm, **sections | {"finetune": settings | {"processes": processes}})
            if processes == 1:
                outcomes = run(load(path), folder / "run", stages_until(load(path), "finetune"), progress=Silent())
                assert outcomes[-1].ran
                shutil.copytree(folder / "run" / "finetune" / "selected", folder / "alone")
        jobs.append(postponed(path, folder / "run", folder / "together"))
        pairs[name] = Pair(folder / "alone", folder / "together", folder / "run")
    folder = tmp_path_factory.mktemp("launch")
    context = Context("test", Config(), Silent(), folder, folder, ())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PYTHONPATH)
        on_devices(context, partial(one_after_the_other, jobs=jobs), folder, processes=2)
    assert context.facts["device"] == "2 x cpu"
    return pairs


def assert_same(alone: dict[str, torch.Tensor], together: dict[str, torch.Tensor]) -> None:
    assert set(alone) == set(together)
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, atol=1e-5, rtol=0)


def test_two_processes_learn_what_one_does(write_config: Callable[..., Path], tmp_path: Path) -> None:
    """In a run; the last step of an epoch has one sample."""
    adapters, facts = [], []
    for processes in (1, 2):
        settings = TRAINED | {"processes": processes}
        path = write_config(tmp_path, finetune=settings, **BIGREC, select={"budget": 5, "random_arms": 0})
        outcomes = run(load(path), tmp_path / "run", stages_until(load(path), "finetune"), progress=Silent())
        folder = tmp_path / "run" / "finetune" / "selected"
        adapters.append(load_file(folder / "adapter_model.safetensors"))
        facts.append(json.loads((folder / "training.json").read_text()))
        assert [outcome.stage for outcome in outcomes if outcome.ran][-1] == "finetune"
    assert outcomes[-1].manifest.device == "2 x cpu"
    assert facts[0]["steps"] == facts[1]["steps"] == 4
    assert_same(*adapters)


@pytest.mark.parametrize("name", ["2 samples in the last step", "4 samples in the last step"])
def test_two_processes_learn_what_one_does_however_many_samples_a_step_has(trained: dict[str, Pair], name: str) -> None:
    assert [facts["steps"] for facts in trained[name].facts()] == [4, 4]
    assert_same(*trained[name].weights("adapter_model.safetensors"))


def test_two_processes_validate_as_one_does(trained: dict[str, Pair]) -> None:
    """Seven validation samples fill no passes of two on two devices: the rest must not count twice."""
    facts = trained["7 validation samples"].facts()
    for how in facts:
        assert how["best_step"] == min(how["validation"], key=lambda step_and_loss: step_and_loss[1])[0]
    alone, together = ([loss for _, loss in how["validation"]] for how in facts)
    assert len(alone) == 3
    assert together == pytest.approx(alone, rel=1e-5)


def test_two_processes_train_tiger_as_one_does(trained: dict[str, Pair]) -> None:
    """Without dropout the model is the same, to rounding."""
    pair = trained["tiger"]
    models = pair.weights("model.safetensors")
    assert [facts["steps"] for facts in pair.facts()] == [4, 4]
    started = load_file(pair.run_dir / "warmstart" / "model" / "model.safetensors")
    assert not torch.equal(models[0]["shared.weight"], started["shared.weight"])
    assert_same(*models)


def wait(context: Context, out: Path) -> None:
    """A job that goes on for a while; each process leaves a file with its id."""
    (out / str(os.getpid())).touch()
    time.sleep(120)


def test_an_interrupt_ends_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: object) -> None:
        for _ in range(600):
            if len(list(tmp_path.iterdir())) == 2:
                raise KeyboardInterrupt
            time.sleep(0.1)
        pytest.fail("two processes were to start")

    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    context = Context("test", Config(), Silent(), tmp_path, tmp_path, ())
    with pytest.raises(KeyboardInterrupt):
        on_devices(context, wait, tmp_path, processes=2)
    started = [int(path.name) for path in tmp_path.iterdir()]
    assert len(started) == 2
    for _ in range(100):
        if not any(Path("/proc", str(process)).exists() for process in started):
            return
        time.sleep(0.1)
    pytest.fail("the processes go on")


def die(context: Context, out: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def exhaust(context: Context, out: Path) -> None:
    torch.empty(2**50)


@pytest.mark.parametrize("job", [die, exhaust])
def test_a_process_that_finds_no_memory_or_is_killed_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: Job
) -> None:
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with pytest.raises(DealrecError, match="one of 2 processes found no memory, or was killed") as caught:
        on_devices(Context("finetune", Config(), Silent(), tmp_path, tmp_path, ()), job, tmp_path, processes=2)
    assert "smaller batches" in caught.value.remedy
    assert list(temporary.iterdir()) == []


def test_what_stops_one_of_the_processes_is_told(write_config: Callable[..., Path], tmp_path: Path) -> None:
    path = write_config(tmp_path, finetune=TRAINED | {"processes": 2, "learning_rate": 1e38}, select={"random_arms": 0})
    with pytest.raises(DealrecError, match="training loss is NaN or infinite"):
        run(load(path), tmp_path / "run", stages_until(load(path), "finetune"), progress=Silent())


def test_batches_that_do_not_divide_among_the_processes_are_refused(write_config: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="times processes"):
        load(write_config(finetune={"batch_size": 4, "micro_batch_size": 4, "processes": 2}))
