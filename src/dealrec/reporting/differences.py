"""The picture of a run's verdicts: by how much the selected arm is better or worse than Random on each measure."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, LABELS, ROW, TOP, BOTTOM, MARGIN = 720, 150, 24, 22, 26, 34


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

    height = TOP + ROW * len(rows) + BOTTOM
    base = height - BOTTOM
    words = "; ".join(f"{row.name} {row.gain:+.1%} [{row.low:+.1%}, {row.high:+.1%}]" for row in rows)
    parts = [
        Markup('<svg class="equivalents" role="img" viewBox="0 0 {} {}"><title>{}</title>').format(
            WIDTH, height, f"Selected against Random, positive the better: {words}"
        ),
        Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">Random</text>').format(x(0), 12),
        Markup('<line class="budget" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(x(0), TOP - 6, base),
        Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LABELS, WIDTH - MARGIN, base, base),
    ]
    for tick, anchor in ((-widest, "start"), (widest, "end")):
        label = f"{tick:+.1%} {'worse' if tick < 0 else 'better'}"
        parts.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>').format(
                x(tick), base + 18, anchor, label
            )
        )
    for number, row in enumerate(rows):
        y = TOP + ROW * number + ROW / 2
        parts.append(Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(LABELS - 12, y + 4, row.name))
        line = Markup('<line class="interval {}" x1="{}" x2="{}" y1="{}" y2="{}"/>')
        parts.append(line.format(row.kind, x(row.low), x(row.high), y, y))
        parts.append(Markup('<circle class="{}" cx="{}" cy="{}" r="5"/>').format(row.kind, x(row.gain), y))
    return Markup("").join([*parts, Markup("</svg>")])
