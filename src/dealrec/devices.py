"""Where a process computes and in which precision: decided here, for every loader, training and measurement."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_CPU_WANTED = "ACCELERATE_USE_CPU"  # read by accelerate and the Trainer as well
_TRUE = ("y", "yes", "t", "true", "on", "1")
_RANK = "LOCAL_RANK"  # of this process among those of its machine, where several train together
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def compute_device() -> torch.device:
    """The one device of this process: the GPU of its rank where several train together, else the first; or the CPU.

    CUDA_VISIBLE_DEVICES says which GPU is the first, ACCELERATE_USE_CPU=true that none is taken. The Trainer and
    accelerate choose alike, so that nothing is ever moved between devices.
    """
    if not torch.cuda.is_available() or os.environ.get(_CPU_WANTED, "").lower() in _TRUE:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get(_RANK, 0)) % torch.cuda.device_count())


def resolved_dtype(name: str, device: torch.device) -> torch.dtype:
    """What "auto", "float32" or "bfloat16" means on a device: auto is bfloat16 on a GPU that has it, else float32."""
    if name == "auto":
        has = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def fingerprint_parts(dtype: str = "float32") -> list[str]:
    """What the device adds to the fingerprint of a stage that computes in `dtype`, a name as `resolved_dtype` takes.

    Kind of device and resolved dtype; nothing on a CPU, where the settings say it all.
    """
    device = compute_device()
    if device.type == "cpu":
        return []
    return [f"{device.type} {str(resolved_dtype(dtype, device)).removeprefix('torch.')}"]


def free_memory() -> None:
    """Collect models that are unreachable but in cycles, and give the GPU's cached memory back."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@contextmanager
def reproducible() -> Iterator[None]:
    """Have torch take deterministic algorithms while open, where the GPU has them; elsewhere it warns.

    On a CPU nothing is changed: its sums have an order. What the user has set is found again, and "error" in the
    place of "warn" is kept.
    """
    if compute_device().type != "cuda":
        yield
        return
    mode, workspace = torch.get_deterministic_debug_mode(), os.environ.get(_WORKSPACE)
    os.environ.setdefault(_WORKSPACE, ":4096:8")  # without it cuBLAS may sum in another order each time
    torch.use_deterministic_algorithms(True, warn_only=mode != 2)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        if workspace is None:
            del os.environ[_WORKSPACE]
