"""Time and memory of a piece of work."""

import contextlib
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


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
        self._wall, self._cpu = time.perf_counter(), _cpu_seconds()

    def read(self) -> Cost:
        """The cost so far."""
        return Cost(time.perf_counter() - self._wall, _cpu_seconds() - self._cpu, _peak_memory())


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
