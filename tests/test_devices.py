"""One device a process, the precision that the settings name, and what of torch's own settings is put back."""

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

from dealrec.devices import compute_device, fingerprint_parts, free_memory, reproducible, resolved_dtype

Gpus = Callable[..., None]


@pytest.mark.parametrize(
    ("count", "environment", "wanted"),
    [
        (0, {}, "cpu"),
        (0, {"LOCAL_RANK": "1"}, "cpu"),
        (8, {}, "cuda:0"),
        (8, {"LOCAL_RANK": "0"}, "cuda:0"),
        (8, {"LOCAL_RANK": "3"}, "cuda:3"),
        (2, {"LOCAL_RANK": "3"}, "cuda:1"),  # as accelerate goes round
        (8, {"ACCELERATE_USE_CPU": "true"}, "cpu"),
        (8, {"ACCELERATE_USE_CPU": "false"}, "cuda:0"),
    ],
)
def test_each_process_has_one_device(
    gpus: Gpus, monkeypatch: pytest.MonkeyPatch, count: int, environment: dict[str, str], wanted: str
) -> None:
    gpus(count)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert compute_device() == torch.device(wanted)


def test_fingerprints_tell_devices_and_precisions_apart_and_keep_those_of_a_cpu(gpus: Gpus) -> None:
    for dtype in ("auto", "float32", "bfloat16"):
        assert fingerprint_parts(dtype) == []
    gpus(1, bfloat16=False)
    assert fingerprint_parts("auto") == fingerprint_parts() == ["device: cuda float32"]
    gpus(2)
    assert fingerprint_parts("auto") == ["device: cuda bfloat16"]
    assert fingerprint_parts("float32") == ["device: cuda float32"]


def state() -> tuple[Any, ...]:
    return torch.get_deterministic_debug_mode(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")


@pytest.mark.parametrize(("mode", "within"), [(0, 1), (1, 1), (2, 2)])
@pytest.mark.parametrize("workspace", [None, ":16:8"])
def test_on_a_gpu_algorithms_are_deterministic_and_the_users_choice_is_put_back(
    gpus: Gpus, monkeypatch: pytest.MonkeyPatch, mode: int, within: int, workspace: str | None
) -> None:
    gpus(1)
    if workspace:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", workspace)

    def interrupted() -> None:
        with reproducible(), reproducible():
            assert state() == (within, workspace or ":4096:8")
            raise KeyboardInterrupt

    torch.set_deterministic_debug_mode(mode)
    try:
        before = state()
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert state() == before
    finally:
        torch.set_deterministic_debug_mode(0)


def test_on_a_cpu_nothing_is_set() -> None:
    before = state()
    with reproducible():
        assert state() == before


def test_the_cache_of_a_gpu_is_given_back_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    free_memory()
    assert not emptied
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    free_memory()
    assert emptied == [True]


def test_what_a_name_means() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 1)
    assert resolved_dtype("auto", cpu) == resolved_dtype("float32", gpu) == torch.float32
    assert resolved_dtype("bfloat16", cpu) == resolved_dtype("bfloat16", gpu) == torch.bfloat16
