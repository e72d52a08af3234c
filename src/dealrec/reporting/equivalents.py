"""The picture of a comparison: each arm on the axis of random samples, with its interval and what it cost."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, LABELS, ROW, TOP, BOTTOM, MARGIN = 720, 190, 24, 22, 26, 34


@dataclass(frozen=True)
class Row:
    """An arm. worth, low, high: random samples, the ends None without an interval; beyond: the worth is above that.

    cost: budget and the samples that selecting would have bought. kind: better, worse or open, as the verdict is.
    """

    name: str
    worth: float
    beyond: bool
    low: float | None
    high: float | None
    cost: float
    kind: str


def draw_equivalents(rows: Sequence[Row], ticks: Sequence[int], *, budget: int) -> Markup:
    """Draw the rows as inline SVG that scales with its container. ticks: sizes at which Random was measured."""
    low = min([budget, *ticks])
    high = max([*ticks, *(row.cost for row in rows)])
    span = math.log(high / low) or 1.0

    def x(samples: float) -> float:
        place = math.log(max(low, min(high, samples)) / low) / span
        return round(LABELS + place * (WIDTH - LABELS - MARGIN), 1)

    base = TOP + ROW * len(rows)
    text = f"What {budget:,} selected samples are worth in random samples: {_in_words(rows)}"
    parts = draw_frame(text, "budget", x(budget), labels=LABELS, rows=len(rows))
    for tick in ticks:
        parts.append(Markup('<line class="axis" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(x(tick), base, base + 4))
        parts.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{:,}</text>').format(x(tick), base + 18, tick)
        )
    for number, row in enumerate(rows):
        parts += _arm(row, x, TOP + ROW * number + ROW / 2)
    return Markup("").join([*parts, Markup("</svg>")])


def draw_estimate(
    name: str, place: float, ends: tuple[float, float] | None, y: float, *, labels: int, kind: str
) -> list[Markup]:
    """A row of such a picture: its name, which ends where `labels` do, its interval, if there is one, and its point."""
    parts = [Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(labels - 12, y + 4, name)]
    if ends is not None:
        line = Markup('<line class="interval {}" x1="{}" x2="{}" y1="{}" y2="{}"/>')
        parts.append(line.format(kind, *ends, y, y))
    parts.append(Markup('<circle class="{}" cx="{}" cy="{}" r="5"/>').format(kind, place, y))
    return parts


def draw_frame(title: str, mark: str, place: float, *, labels: int, rows: int) -> list[Markup]:
    """What stands around the rows: the opening tag, an upright line with what it marks, and the axis."""
    height = TOP + ROW * rows + BOTTOM
    base = height - BOTTOM
    return [
        Markup('<svg class="equivalents" role="img" viewBox="0 0 {} {}"><title>{}</title>').format(
            WIDTH, height, title
        ),
        Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(place, 12, mark),
        Markup('<line class="budget" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(place, TOP - 6, base),
        Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(labels, WIDTH - MARGIN, base, base),
    ]


def _arm(row: Row, x: Callable[[float], float], y: float) -> list[Markup]:
    ends = None if row.low is None or row.high is None else (x(row.low), x(row.high))
    parts = draw_estimate(row.name, x(row.worth), ends, y, labels=LABELS, kind=row.kind)
    if row.beyond:
        parts.append(Markup('<text class="{}" x="{}" y="{}">→</text>').format(row.kind, x(row.worth) + 8, y + 5))
    parts.append(Markup('<path class="cost" d="M{0} {1}v10"/>').format(x(row.cost), y - 5))
    return parts


def _in_words(rows: Sequence[Row]) -> str:
    return "; ".join(f"{row.name} {'above ' if row.beyond else ''}{row.worth:,.0f}" for row in rows)
