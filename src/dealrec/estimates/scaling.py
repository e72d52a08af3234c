"""From small runs of a stage to the whole of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dealrec.engine.measure import Cost

SHOWS = 1.0  # CPU seconds that a larger run must take longer than a small one, for noise to be small against it
GROWTHS, FACTOR = 3, 4  # how often a run is made larger at most until that shows, each step so many times the last

Seconds = NDArray[np.float64]  # wall and CPU: [2]


@dataclass(frozen=True)
class Axis:
    """What a stage's cost grows with, in proportion, all else being as it is; and how much of it there is in a run.

    name: of the data, or of a setting. least: of the smallest run; step: to the next one. kept: later axes are measured
    at the size that was reached; per: the kept one that the cost of each grows with. once: whatever the number of arms.
    limit: the largest size that can be tried. total: what is done in all, in such sizes; None: `limit`. most: by the
    settings, where the data decide how much of it is done, and `note` says so. figures: what is shown of it.
    """

    name: str
    least: int = 1
    step: int = 1
    kept: bool = False
    per: str | None = None
    once: bool = False
    limit: int = 1
    total: float | None = None
    most: float | None = None
    figures: Mapping[str, int] = field(default_factory=dict)
    note: str | None = None


def scaled(
    run: Callable[[Mapping[str, int]], Cost],
    axes: Sequence[Axis],
    *,
    arms: float = 1.0,
    measure: Callable[[str, int], float] = lambda _name, size: size,
) -> tuple[Seconds, Seconds, int]:
    """Run a stage at its least sizes twice, then with one axis larger at a time; add up what the whole of each takes.

    run: at sizes by the names of axes. arms: how many times those of a small run. measure: of a size of an axis, what
    the cost is proportional to. The first run alone pays for imports, as one in earnest does, and counts once.
    Returns the seconds that are expected, those of `most` of each axis, and the peak memory of the runs in bytes.
    """
    sizes = {axis.name: min(axis.least, max(1, axis.limit)) for axis in axes}
    costs = [run(sizes), run(sizes)]
    first, base = map(_seconds, costs)
    expected = most = first + (arms - 1) * base
    larger: dict[str | None, float] = {None: 1.0}  # how many times as much there is, in the whole, of what was cut
    for axis in axes:
        small, size, seconds = sizes[axis.name], sizes[axis.name], base
        for step in (axis.step * FACTOR**growth for growth in range(GROWTHS)):
            if size >= axis.limit or (seconds - base)[1] >= SHOWS:
                break
            size = min(axis.limit, small + step)
            costs.append(run({**sizes, axis.name: size}))
            seconds = _seconds(costs[-1])
        least, reached = measure(axis.name, small), measure(axis.name, size)
        rate = np.maximum(0.0, seconds - base) / max(reached - least, 1.0)
        rate *= larger[axis.per] * (1.0 if axis.once else arms)
        whole = measure(axis.name, axis.limit) if axis.total is None else axis.total
        expected = expected + rate * (whole - least)
        most = most + rate * ((whole if axis.most is None else axis.most) - least)
        if axis.kept:
            sizes[axis.name], base, larger[axis.name] = size, seconds, whole / reached
    return expected, most, max(cost.peak_memory_bytes for cost in costs)


def _seconds(cost: Cost) -> Seconds:
    return np.array([cost.wall_seconds, cost.cpu_seconds])
