"""One training in two processes: the same outcome as in one, and errors that come through."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dealrec.config_file import load
from dealrec.errors import ConfigError, DealrecError
from dealrec.pipeline.graph import stages_until
from dealrec.pipeline.runner import run
from dealrec.pipeline.stage import Silent

TRAINED = {"batch_size": 4, "micro_batch_size": 1, "learning_rate": 0.01, "epochs": 2, "checkpoint_every": "epoch"}


def test_two_processes_learn_what_one_does(write_config: Callable[..., Path], tmp_path: Path) -> None:
    adapters, told = [], []
    for processes in (1, 2):
        settings = TRAINED | {"processes": processes}
        path = write_config(tmp_path, finetune=settings, llm={"lora": {"dropout": 0.0}}, select={"random_arms": 0})
        outcomes = run(load(path), tmp_path / "run", stages_until("finetune"), progress=Silent())
        folder = tmp_path / "run" / "finetune" / "selected"
        adapters.append(load_file(folder / "adapter_model.safetensors"))
        told.append(json.loads((folder / "training.json").read_text()))
        assert [outcome.stage for outcome in outcomes if outcome.ran][-1] == "finetune"
    assert outcomes[-1].manifest.device == "2 x cpu"
    assert told[0]["steps"] == told[1]["steps"]
    for name, alone in adapters[0].items():
        torch.testing.assert_close(adapters[1][name], alone, atol=1e-5, rtol=1e-3)


def test_what_stops_one_of_the_processes_is_told(write_config: Callable[..., Path], tmp_path: Path) -> None:
    path = write_config(tmp_path, finetune=TRAINED | {"processes": 2, "learning_rate": 1e38}, select={"random_arms": 0})
    with pytest.raises(DealrecError, match="training loss is NaN or infinite"):
        run(load(path), tmp_path / "run", stages_until("finetune"), progress=Silent())


def test_batches_that_do_not_divide_among_the_processes_are_refused(write_config: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="times processes"):
        load(write_config(finetune={"batch_size": 4, "micro_batch_size": 4, "processes": 2}))
