"""A training takes one device, computes as its parameters are, and leaves nothing behind."""

import gc
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers.training_args import ParallelMode

from dealrec.finetuning import train
from dealrec.finetuning.trainer import SampleMeanTrainer
from dealrec.finetuning.training import _arguments, _passes
from dealrec.sequences import Encoded

SETTINGS: dict[str, Any] = {
    "pad_id": 0,
    "epochs": 1,
    "learning_rate": 0.02,
    "batch_size": 4,
    "micro_batch_size": 2,
    "seed": 1,
}
Make = Callable[[], Any]
Case = tuple[Make, list[Encoded]]


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_of_several_gpus_a_process_takes_one(count: int, gpus: Callable[..., None], tmp_path: Path) -> None:
    gpus(count)
    arguments = _arguments(tmp_path, every=None, per_device_train_batch_size=2, per_device_eval_batch_size=2)
    assert arguments.device == torch.device("cuda", 0)
    assert arguments.n_gpu == 1
    assert arguments.parallel_mode == ParallelMode.NOT_PARALLEL
    assert arguments.train_batch_size == arguments.eval_batch_size == 2
    assert _passes(arguments, 4) == 2


@pytest.mark.slow
def test_gpus_in_sight_do_not_change_how_a_process_trains_on_the_cpu(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, samples = case
    alone, among = make(), make()
    expected = train(alone, samples, scratch=tmp_path, **SETTINGS)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.random, "fork_rng", nullcontext)  # it would ask the GPUs
    assert train(among, samples, scratch=tmp_path, **SETTINGS) == expected
    for name, value in among.state_dict().items():
        assert torch.equal(value, alone.state_dict()[name])


def computed_in(model: nn.Module) -> set[torch.dtype]:
    """Filled with the types that the layers answer in, once the model is called."""
    dtypes: set[torch.dtype] = set()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _module, _inputs, output: dtypes.add(output.dtype))
    return dtypes


@pytest.mark.slow
@pytest.mark.parametrize("mixed", ["no", "bf16"])
def test_what_trains_is_the_type_of_the_parameters_whatever_accelerate_would_mix(
    case: Case, mixed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", mixed)
    make, samples = case
    for dtype in (torch.float32, torch.bfloat16):
        model = make().to(dtype)
        seen = computed_in(model)
        train(model, samples, scratch=tmp_path / str(dtype), **SETTINGS)
        assert seen == {dtype}


def test_on_a_gpu_that_has_bfloat16_nothing_is_mixed_either(gpus: Callable[..., None], tmp_path: Path) -> None:
    gpus(1)
    arguments = _arguments(tmp_path, every=None)
    assert not arguments.bf16
    assert not arguments.fp16
    assert arguments.mixed_precision == "no"


def test_no_model_is_compiled_for_the_users_accelerate(
    adapted: Make, samples: list[Encoded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_args: Any, **_options: Any) -> None:
        pytest.fail("nothing was to be compiled")

    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "eager")
    monkeypatch.setattr(torch, "compile", refused)
    train(adapted(), samples, scratch=tmp_path, **SETTINGS)


def test_model_optimiser_and_trainer_go_when_a_training_is_over(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, samples = case
    held: dict[str, weakref.ref[Any]] = {}
    run = SampleMeanTrainer.train

    def watched(self: SampleMeanTrainer, **options: Any) -> Any:
        outcome = run(self, **options)
        optimiser: Any = self.optimizer
        held["trainer"], held["optimiser"] = weakref.ref(self), weakref.ref(optimiser)
        held["state"] = weakref.ref(next(iter(optimiser.state.values()))["exp_avg"])
        return outcome

    monkeypatch.setattr(SampleMeanTrainer, "train", watched)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    gc.disable()  # what is in a cycle stays unless somebody collects it
    try:
        model = make()
        held["model"] = weakref.ref(model)
        train(model, samples, scratch=tmp_path, checkpoint_every="epoch", validation=samples, **SETTINGS)
        assert {name for name, thing in held.items() if thing() is not None} == {"model"}
    finally:
        gc.enable()
    del model
    gc.collect()
    assert held["model"]() is None
