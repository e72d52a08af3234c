"""Histograms: the counts, and a small drawing of them in SVG."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import ArrayLike, NDArray

BINS = 40
WIDTH, HEIGHT, TOP, BOTTOM = 360, 150, 18, 20
GAP, LEAST = 1.0, 1.5  # between bars; height of a bar that is not empty


@dataclass(frozen=True)
class Histogram:
    """Bars of equal width from low to high. counts: of each bar; marked: how many of them are selected."""

    low: float
    high: float
    counts: tuple[int, ...]
    marked: tuple[int, ...]


@dataclass(frozen=True)
class Summary:
    """n finite values; low, median and high of them."""

    n: int
    low: float
    median: float
    high: float


def finite(values: ArrayLike) -> NDArray[np.float64]:
    """The finite values, float64."""
    array = np.asarray(values, dtype=np.float64)
    return array[np.isfinite(array)]


def summary(values: ArrayLike) -> Summary | None:
    """Summarise the finite values; None if there is none."""
    array = finite(values)
    return Summary(len(array), float(array.min()), float(np.median(array)), float(array.max())) if len(array) else None


def histogram(values: ArrayLike, marked: ArrayLike = (), *, bins: int = BINS) -> Histogram | None:
    """Count the finite values in `bins` bars of equal width, [low, high), the last one closed.

    One bar if all are equal; None if there is none. marked: the selected ones among the values.

    >>> histogram([0, 1, 2, 3, 4], [4], bins=2)
    Histogram(low=0.0, high=4.0, counts=(2, 3), marked=(0, 1))
    >>> histogram([7, 7]).counts
    (2,)
    """
    array, selected = finite(values), finite(marked)
    if not len(array):
        return None
    low, high = float(array.min()), float(array.max())
    if low / 2 == high / 2:
        return Histogram(low, high, (len(array),), (len(selected),))
    return Histogram(low, high, _counts(array, low, high, bins), _counts(selected, low, high, bins))


def _counts(values: NDArray[np.float64], low: float, high: float, bins: int) -> tuple[int, ...]:
    # Halves: the difference of two doubles may be more than the largest double.
    place = (values / 2 - low / 2) / (high / 2 - low / 2) * bins
    bars = np.clip(place.astype(np.int64), 0, bins - 1)
    return tuple(int(count) for count in np.bincount(bars, minlength=bins))


def draw(bars: Histogram, *, name: str, ends: tuple[str, str]) -> Markup:
    """Draw the histogram as inline SVG that scales with its container. ends: labels of the axis' ends."""
    tallest = max(1, *bars.counts)
    text = (
        f"Histogram of {name}: {sum(bars.counts):,} values from {ends[0]} to {ends[1]}, {sum(bars.marked):,} of them"
        f" selected; the tallest of {len(bars.counts)} bars holds {tallest:,}"
    )
    base = HEIGHT - BOTTOM
    parts = [
        Markup('<svg class="histogram" role="img" viewBox="0 0 {} {}"><title>{}</title>').format(WIDTH, HEIGHT, text),
        _bars(bars.counts, "all", tallest),
        _bars(bars.marked, "marked", tallest),
        Markup('<line class="axis" x1="0" x2="{}" y1="{}" y2="{}"/>').format(WIDTH, base, base),
        Markup('<text x="0" y="{}">{}</text>').format(HEIGHT - 5, ends[0]),
        Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(WIDTH, HEIGHT - 5, ends[1]),
        Markup('<text class="count" x="0" y="11">{}</text>').format(f"tallest bar: {tallest:,}"),
        Markup("</svg>"),
    ]
    return Markup("").join(parts)


def _bars(counts: Sequence[int], kind: str, tallest: int) -> Markup:
    step = WIDTH / len(counts)
    base, room = HEIGHT - BOTTOM, HEIGHT - BOTTOM - TOP
    bars = []
    for place, count in enumerate(counts):
        if count:
            height = max(LEAST, room * count / tallest)
            corner = f'x="{place * step + GAP / 2:.1f}" y="{base - height:.1f}"'
            bars.append(f'<rect {corner} width="{step - GAP:.1f}" height="{height:.1f}"/>')
    return Markup('<g class="{}">{}</g>').format(escape(kind), Markup("".join(bars)))
