"""From small runs of a stage to the whole of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dealrec.engine.measure import Cost
from dealrec.estimates.scales import Amount, Axis

SHOWS = 1.0  # CPU seconds that a larger run must take longer than a small one, for noise to be small against it
GROWTHS, FACTOR = 3, 4  # how often a run is made larger at most until that shows, each step so many times the last

Seconds = NDArray[np.float64]  # wall and CPU: [2]


@dataclass(frozen=True)
class Scaled:
    """expected, most: seconds, see `Amount`. parts: of `expected`, by the axis that they grow with. peak: bytes."""

    expected: Seconds
    most: Seconds
    parts: dict[str, float]
    peak: int


def scaled(
    run: Callable[[Mapping[str, int]], Cost],
    axes: Sequence[tuple[Axis, Amount]],
    *,
    arms: float = 1.0,
    measure: Callable[[str, int], float] = lambda _name, size: size,
) -> Scaled:
    """Run a stage at its least sizes twice, then with one axis larger at a time; add up what the whole of each takes.

    run: at sizes by the names of axes. arms: how many times those of a small run. measure: of a size of an axis, what
    the cost is proportional to. The first run alone pays for imports, as one in earnest does, and counts once.
    """
    sizes = {axis.name: min(axis.least, max(1, amount.limit)) for axis, amount in axes}
    costs = [run(sizes), run(sizes)]
    first, base = map(_seconds, costs)
    expected, most, parts = first + (arms - 1) * base, first + (arms - 1) * base, {}
    larger: dict[str | None, float] = {None: 1.0}  # how many times as much there is, in the whole, of what was cut
    for axis, amount in axes:
        small, size, seconds = sizes[axis.name], sizes[axis.name], base
        for step in (axis.step * FACTOR**growth for growth in range(GROWTHS)):
            if size >= amount.limit or (seconds - base)[1] >= SHOWS:
                break
            size = min(amount.limit, small + step)
            costs.append(run({**sizes, axis.name: size}))
            seconds = _seconds(costs[-1])
        least, reached = measure(axis.name, small), measure(axis.name, size)
        rate = np.maximum(0.0, seconds - base) / max(reached - least, 1.0)
        rate *= larger[axis.per] * (1.0 if axis.once else arms)
        whole = measure(axis.name, amount.limit) if amount.total is None else amount.total
        parts[axis.name] = float((rate * (whole - least))[0])
        expected = expected + rate * (whole - least)
        most = most + rate * ((whole if amount.most is None else amount.most) - least)
        if axis.kept:
            sizes[axis.name], base, larger[axis.name] = size, seconds, whole / reached
    return Scaled(expected, most, parts, max(cost.peak_memory_bytes for cost in costs))


def _seconds(cost: Cost) -> Seconds:
    return np.array([cost.wall_seconds, cost.cpu_seconds])
