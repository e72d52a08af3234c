"""From small runs of a stage to the whole of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dealrec.engine.measure import Cost

SHOWS = 1.0  # CPU seconds that a larger run must take longer than a small one, for noise to be small against it
GROWTHS, FACTOR = 3, 4  # how often a run is made larger at most until that shows, each step so many times the last


@dataclass(frozen=True)
class Axis:
    """What a stage's cost grows with, in proportion, all else being as it is; and how much of it there is in a run.

    name: of the data, or of a setting. least: of the smallest run; step: to the next one. whole: of the run. per: the
    setting that says how many times it is gone through (a pattern in the table); times: its value, 1 in a small run.
    once: however often the rest is repeated.
    """

    name: str
    least: int = 1
    step: int = 1
    per: str = ""
    once: bool = False
    whole: int = 1
    times: int = 1


def scaled(
    run: Callable[[Mapping[str, int]], Cost], axes: Sequence[Axis], *, repeats: float = 1.0
) -> tuple[NDArray[np.float64], int]:
    """Run a stage at its least sizes twice, then with one axis larger at a time; add up what the whole of each takes.

    run: at sizes by the names of axes. repeats: how many times what a small run does. The first run alone pays for
    imports, as one in earnest does, and counts once.
    Returns the wall and CPU seconds [2], and the peak memory in bytes.
    """
    least = {axis.name: min(axis.least, axis.whole) for axis in axes}
    costs = [run(least), run(least)]
    first, base = map(_seconds, costs)
    total = first + (repeats - 1) * base
    for axis in axes:
        small = size = least[axis.name]
        most = axis.whole * (1 if "." in axis.name else axis.times)  # data that are few are gone through more often
        growth = np.zeros(2)
        for step in (axis.step * FACTOR**number for number in range(GROWTHS)):
            if size >= most or growth[1] >= SHOWS:
                break
            times = max(1, -(-min(most, small + step) // axis.whole))
            size = min(axis.whole, small + step) * times
            sizes = {**least, axis.name: size // times} | ({axis.per: times} if times > 1 else {})
            costs.append(run(sizes))
            growth = np.maximum(0.0, _seconds(costs[-1]) - base)
        rate = growth / max(1, size - small) * (1.0 if axis.once else repeats)
        total = total + rate * (axis.whole * axis.times - small)
    return total, max(cost.peak_memory_bytes for cost in costs)


def _seconds(cost: Cost) -> NDArray[np.float64]:
    return np.array([cost.wall_seconds, cost.cpu_seconds])
