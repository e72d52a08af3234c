"""Time and memory of a piece of work."""

import contextlib
import ctypes
import gc
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dealrec.devices import compute_device, free_memory

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_other_peaks: list[int] = []  # of the meter that runs: from before the peak was reset, and of other processes


@dataclass(frozen=True)
class Cost:
    """Wall and CPU seconds (children included), and the peak memory in bytes.

    Of a process on a GPU it is that of its tensors there, else the resident memory; of several the largest.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int


def clock() -> tuple[float, float]:
    """Wall and CPU seconds, children that have ended included, since some moment in the past."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return time.perf_counter(), sum(usage.ru_utime + usage.ru_stime for usage in usages)


class Meter:
    """Measures from its making to `read`. Where the system cannot reset the peak, it is that since the start."""

    def __init__(self) -> None:
        free_memory()  # what came before is not this one's
        if _gpu_in_use():
            import torch

            torch.cuda.reset_peak_memory_stats(compute_device())
        with contextlib.suppress(OSError):
            _CLEAR.write_text("5")  # Linux: resets the high-water mark of this process
        _other_peaks.clear()
        self._begun = clock()

    def read(self, *, device: str = "cpu") -> Cost:
        """The cost so far of what computed on `device`, as a manifest names it."""
        peak = _gpu_peak() if "cuda" in device else _peak_memory()
        wall, cpu = (now - then for now, then in zip(clock(), self._begun, strict=True))
        return Cost(wall, cpu, max([peak, *_other_peaks]))


def peak_memory_of(work: Callable[[], Any], *, device: Any) -> int:
    """Peak memory in bytes while `work` runs: of the tensors on a GPU; else of the whole process, resident.

    device: a torch device. Raises OSError where the system cannot reset the peak: only Linux can.
    """
    if device.type == "cuda":
        import torch

        _other_peaks.append(torch.cuda.max_memory_allocated(device))
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device)
    gc.collect()
    _other_peaks.append(_peak_memory())
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc: what earlier work has freed would hide what this one takes
    _CLEAR.write_text("5")
    work()
    return _peak_memory()


def note_peak(size: int) -> None:
    """Count the peak of a process that this one has started."""
    _other_peaks.append(size)


def _gpu_in_use() -> bool:
    """Whether this process has put its GPU to use; torch is not imported to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_initialized() and compute_device().type == "cuda"


def _gpu_peak() -> int:
    """Of the tensors on the GPU; 0 where none is in use, as where other processes compute."""
    if not _gpu_in_use():
        return 0
    import torch

    return torch.cuda.max_memory_allocated(compute_device())


def _peak_memory() -> int:
    try:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
