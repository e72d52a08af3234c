"""Where a process computes and in which precision: decided here, for every loader, training and measurement."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_USE_CPU = "ACCELERATE_USE_CPU"  # read by accelerate and the Trainer as well
_TRUE = ("y", "yes", "t", "true", "on", "1")
_RANK = "LOCAL_RANK"  # of this process among those of its machine, where several train together
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_ERROR = 2  # torch's debug mode in which it raises where it cannot be deterministic


def compute_device() -> "torch.device":
    """The one device of this process: the GPU of its rank where several train together, else the first; or the CPU.

    CUDA_VISIBLE_DEVICES says which GPU is the first, ACCELERATE_USE_CPU=true that none is taken. The Trainer and
    accelerate choose alike, so that nothing is ever moved between devices.
    """
    import torch

    if not torch.cuda.is_available() or os.environ.get(_USE_CPU, "").lower() in _TRUE:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get(_RANK, 0)) % torch.cuda.device_count())


def resolved_dtype(name: str, device: "torch.device") -> "torch.dtype":
    """What "auto", "float32" or "bfloat16" means on a device: auto is bfloat16 on a GPU that has it, else float32."""
    import torch

    if name == "auto":
        supported = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if supported else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def fingerprint_parts(dtype: str = "float32") -> list[str]:
    """What the device adds to the fingerprint of a stage that computes in `dtype`, a name as `resolved_dtype` takes.

    Kind of device and resolved dtype; nothing on a CPU, where the settings say it all.
    """
    if version("torch").endswith("+cpu"):  # known without the seconds that importing torch takes
        return []
    device = compute_device()
    if device.type == "cpu":
        return []
    return [f"device: {device.type} {str(resolved_dtype(dtype, device)).removeprefix('torch.')}"]


def free_memory() -> None:
    """Collect models that only cycles hold, and give back what the GPU's allocator keeps of them."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@contextmanager
def reproducible() -> Iterator[None]:
    """Have torch take deterministic algorithms while open, where the GPU has them; where it has not, torch warns.

    On a CPU nothing is changed: sums have an order there. What the user has set is put back, and stays where it is
    stricter.
    """
    import torch

    if compute_device().type != "cuda":
        yield
        return
    mode, workspace = torch.get_deterministic_debug_mode(), os.environ.get(_WORKSPACE)
    os.environ.setdefault(_WORKSPACE, ":4096:8")  # or cuBLAS may sum in another order each time
    torch.use_deterministic_algorithms(True, warn_only=mode != _ERROR)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        if workspace is None:
            del os.environ[_WORKSPACE]
