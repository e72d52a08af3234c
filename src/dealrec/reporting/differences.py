"""The picture of a run's verdicts: by how much the selected arm is better or worse than Random on each measure."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from dealrec.reporting.equivalents import MARGIN, ROW, TOP, WIDTH, draw_estimate, draw_frame

LABELS = 150


@dataclass(frozen=True)
class Row:
    """A measure. gain, low, high: shares of Random's mean, positive the better; kind: better, worse or open."""

    name: str
    gain: float
    low: float
    high: float
    kind: str


def draw_differences(rows: Sequence[Row]) -> Markup:
    """Draw the rows around Random as inline SVG that scales with its container."""
    widest = max(abs(end) for row in rows for end in (row.low, row.high, row.gain)) or 1.0

    def x(gain: float) -> float:
        return round(LABELS + (1 + gain / widest) / 2 * (WIDTH - LABELS - MARGIN), 1)

    base = TOP + ROW * len(rows)
    words = "; ".join(f"{row.name} {row.gain:+.1%} [{row.low:+.1%}, {row.high:+.1%}]" for row in rows)
    title = f"Selected against Random, positive the better: {words}"
    parts = draw_frame(title, "Random", x(0), labels=LABELS, rows=len(rows))
    for tick, anchor in ((-widest, "start"), (widest, "end")):
        label = f"{tick:+.1%} {'worse' if tick < 0 else 'better'}"
        parts.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>').format(
                x(tick), base + 18, anchor, label
            )
        )
    for number, row in enumerate(rows):
        ends = x(row.low), x(row.high)
        parts += draw_estimate(row.name, x(row.gain), ends, TOP + ROW * number + ROW / 2, labels=LABELS, kind=row.kind)
    return Markup("").join([*parts, Markup("</svg>")])
