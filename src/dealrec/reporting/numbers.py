"""Numbers as people read them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

DIGITS = 3
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def number(value: float) -> str:
    """Whole numbers in full, others with three significant digits, with an exponent only far from one.

    >>> [number(x) for x in (0, 128.0, 0.014557, 3.72552, -8910.3, 12345678, 4.38e-7)]
    ['0', '128', '0.0146', '3.73', '-8,910', '12,345,678', '4.38e-07']
    """
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e12:
        return f"{int(value):,}"
    magnitude = math.floor(math.log10(abs(value)))
    if not -5 < magnitude < 12:
        return f"{value:.3g}"
    return f"{value:,.{max(0, DIGITS - 1 - magnitude)}f}"


def metric(value: float) -> str:
    """A loss or a share of hits, to four decimals; what would vanish so keeps one digit.

    >>> metric(3.72552), metric(-0.0), metric(-0.000012)
    ('3.7255', '0.0000', '-1e-05')
    """
    return f"{value:.0e}" if 0 < abs(value) < 5e-5 else f"{value + 0.0:.4f}"


def difference(value: float) -> str:
    """A difference of metrics, with its sign.

    >>> difference(0.00878), difference(-0.00878), difference(0.0)
    ('+0.0088', '-0.0088', '0.0000')
    """
    return f"+{metric(value)}" if value > 0 else metric(value)


def percent(share: float) -> str:
    """A share in percent.

    >>> percent(0.00848), percent(0.125), percent(1.0), percent(0.0), percent(0.00001)
    ('0.85%', '12.5%', '100%', '0%', '<0.01%')
    """
    value = 100 * share
    if 0 < value < 0.01:
        return "<0.01%"
    return f"{value:.{2 if value < 1 else 1}f}".rstrip("0").rstrip(".") + "%"


def seconds(value: float) -> str:
    """A duration.

    >>> [seconds(x) for x in (0.03, 77.36, 1234.5, 132_732)]
    ['0.03 s', '77.4 s', '20.6 min', '36.9 h']
    """
    if value < 1:
        return f"{value:.2f} s"
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def memory(size: int) -> str:
    """Bytes, in GiB or MiB.

    >>> memory(1_383_510_016), memory(50_000_000)
    ('1.29 GiB', '48 MiB')
    """
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def times(ratio: float) -> str:
    """How one quantity compares with another: a percentage, or how many times it is.

    >>> times(0.43), times(16.23), times(1800)
    ('43%', '16.2 times', '1,800 times')
    """
    return percent(ratio) if ratio < 1 else f"{ratio:,.{1 if ratio < 100 else 0}f} times"


@dataclass(frozen=True)
class Unit:
    """A power of ten in which all numbers of one kind are shown."""

    exponent: int = 0

    @classmethod
    def of(cls, values: Iterable[float]) -> "Unit":
        """Choose the unit: none for ordinary sizes, else a power of 1,000 below the largest.

        >>> Unit.of([7.1e-5, -1e-6]).exponent, Unit.of([0.5, 900.0]).exponent, Unit.of([]).exponent
        (-6, 0, 0)
        """
        largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
        magnitude = math.floor(math.log10(largest)) if largest else 0
        return cls() if -3 <= magnitude < 6 else cls(max(-300, 3 * (magnitude // 3)))

    def show(self, value: float) -> str:
        """Show a value in this unit."""
        return number(value / 10.0**self.exponent)


def moments(low: float, high: float) -> "tuple[int, str] | None":
    """Ticks per second and the format of times from `low` to `high`, or None if they are not times since 1970.

    What lies between 1973 and 2286 when read as seconds, milli-, micro- or nanoseconds is a time; no number
    does so in two of these units.

    >>> moments(874_965_478, 893_286_638), moments(0, 270)
    ((1, '%Y-%m-%d'), None)
    """
    for ticks in (1, 10**3, 10**6, 10**9):
        if low / ticks >= 1e8 and high / ticks < 1e10:
            days = (high - low) / ticks / 86_400
            return ticks, "%Y-%m-%d" if days > 20 else "%Y-%m-%d %H:%M"
    return None


def moment(value: float, ticks: int, style: str) -> str:
    """A time since 1970 (UTC).

    >>> moment(874_965_478_000, 1000, "%Y-%m-%d")
    '1997-09-22'
    """
    return (_EPOCH + timedelta(seconds=value / ticks)).strftime(style)
