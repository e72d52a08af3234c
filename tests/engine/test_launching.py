"""One training in two processes: the same outcome as in one, and errors that come through."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dealrec.config import Config
from dealrec.config.files import load
from dealrec.engine.launching import on_devices
from dealrec.engine.runner import run
from dealrec.engine.stage import Context, Silent
from dealrec.errors import ConfigError, DealrecError
from dealrec.stages.pipeline import stages_until
from tests.stages.test_recommenders import SMALL_TIGER

TRAINED = {"batch_size": 4, "micro_batch_size": 2, "learning_rate": 0.1, "epochs": 2, "checkpoint_every": "epoch"}


@pytest.mark.parametrize("budget", [5, 6, 8])  # the last step of an epoch has one, two or four samples
def test_two_processes_learn_what_one_does(write_config: Callable[..., Path], tmp_path: Path, budget: int) -> None:
    adapters, told = [], []
    for processes in (1, 2):
        settings = TRAINED | {"processes": processes}
        selected = {"budget": budget, "random_arms": 0}
        path = write_config(tmp_path, finetune=settings, llm={"lora": {"r": 2, "dropout": 0.0}}, select=selected)
        outcomes = run(load(path), tmp_path / "run", stages_until("finetune"), progress=Silent())
        folder = tmp_path / "run" / "finetune" / "selected"
        adapters.append(load_file(folder / "adapter_model.safetensors"))
        told.append(json.loads((folder / "training.json").read_text()))
        assert [outcome.stage for outcome in outcomes if outcome.ran][-1] == "finetune"
    assert outcomes[-1].manifest.device == "2 x cpu"
    assert told[0]["steps"] == told[1]["steps"] == 4
    for name, alone in adapters[0].items():
        torch.testing.assert_close(adapters[1][name], alone, atol=1e-5, rtol=0)


def test_two_processes_validate_as_one_does(write_config: Callable[..., Path], tmp_path: Path) -> None:
    """Seven validation samples fill no passes of two on two devices: the rest must not count twice."""
    validations = []
    for processes in (1, 2):
        settings = TRAINED | {"processes": processes, "patience": 2, "validation_samples": 7, "epochs": 3}
        lora = {"r": 2, "dropout": 0.0}
        path = write_config(tmp_path, finetune=settings, llm={"lora": lora}, select={"budget": 5, "random_arms": 0})
        run(load(path), tmp_path / "run", stages_until("finetune"), progress=Silent())
        how = json.loads((tmp_path / "run" / "finetune" / "selected" / "training.json").read_text())
        validations.append(how["validation"])
        assert how["best_step"] == min(how["validation"], key=lambda step_and_loss: step_and_loss[1])[0]
    (alone, together) = ([loss for _, loss in validation] for validation in validations)
    assert len(alone) == 3
    assert together == pytest.approx(alone, rel=1e-5)


def test_two_processes_train_tiger_as_one_does(
    write_config: Callable[..., Path], tmp_path: Path, text_encoder: Path
) -> None:
    """The first five stages are the same; without dropout so is the model, to rounding."""
    tiger = {**SMALL_TIGER, "text_encoder": str(text_encoder)}
    tiger["t5"] = {**tiger["t5"], "dropout": 0.0}
    models, steps = [], []
    for processes in (1, 2):
        path = write_config(
            tmp_path,
            recommender="tiger",
            tiger=tiger,
            data={"warm_share": 0.5},
            finetune=TRAINED | {"processes": processes, "learning_rate": 1e-3},
            select={"budget": 5, "random_arms": 0},
        )
        outcomes = run(load(path), tmp_path / "run", stages_until("finetune"), progress=Silent())
        folder = tmp_path / "run" / "finetune" / "selected"
        models.append(load_file(folder / "model.safetensors"))
        steps.append(json.loads((folder / "training.json").read_text())["steps"])
        assert [outcome.stage for outcome in outcomes if outcome.ran][-1] == "finetune"
    assert outcomes[-1].manifest.device == "2 x cpu"
    assert steps == [4, 4]
    started = load_file(tmp_path / "run" / "warmstart" / "model" / "model.safetensors")
    assert not torch.equal(models[0]["shared.weight"], started["shared.weight"])
    for name, alone in models[0].items():
        torch.testing.assert_close(models[1][name], alone, atol=1e-5, rtol=0)


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

    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
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


def test_what_stops_one_of_the_processes_is_told(write_config: Callable[..., Path], tmp_path: Path) -> None:
    path = write_config(tmp_path, finetune=TRAINED | {"processes": 2, "learning_rate": 1e38}, select={"random_arms": 0})
    with pytest.raises(DealrecError, match="training loss is NaN or infinite"):
        run(load(path), tmp_path / "run", stages_until("finetune"), progress=Silent())


def test_batches_that_do_not_divide_among_the_processes_are_refused(write_config: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="times processes"):
        load(write_config(finetune={"batch_size": 4, "micro_batch_size": 4, "processes": 2}))
