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

from dealrec.errors import ConfigError

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_earlier_peaks: list[int] = []  # of the meter that runs, from before `peak_memory_of` reset the peak


@dataclass(frozen=True)
class Cost:
    """Wall and CPU seconds (children included), and the peak resident memory of the process in bytes."""

    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int


class Meter:
    """Measures from its making to `read`. Where the system cannot reset the peak, it is that since the start."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            _CLEAR.write_text("5")  # Linux: resets the high-water mark of this process
        _earlier_peaks.clear()
        self._wall, self._cpu = time.perf_counter(), _cpu_seconds()

    def read(self) -> Cost:
        """The cost so far."""
        return Cost(
            time.perf_counter() - self._wall, _cpu_seconds() - self._cpu, max([_peak_memory(), *_earlier_peaks])
        )


def peak_memory_of(work: Callable[[], Any], *, device: Any) -> int:
    """Peak memory in bytes while `work` runs: of the tensors on a GPU; else of the whole process, resident.

    device: a torch device. Raises ConfigError where the system cannot reset the peak: only Linux can.
    """
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device)
    gc.collect()
    _earlier_peaks.append(_peak_memory())
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc: what earlier work has freed would hide what this one takes
    try:
        _CLEAR.write_text("5")
    except OSError as error:
        raise ConfigError(
            "effort.batch_memory: the peak memory of a process can be measured on Linux alone",
            "Set effort.batch_tokens in its place.",
        ) from error
    work()
    return _peak_memory()


def _cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _peak_memory() -> int:
    try:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
