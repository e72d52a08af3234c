"""Numbers and texts as people read them, in the terminal and in the report."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DIGITS = 3


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


def in_unit(facts: Mapping[str, Any]) -> str:
    """What a selection is in the unit of its budget, where that is not samples. facts: of the stage select.

    >>> in_unit({"budget": 6, "budget_unit": "tokens", "size": 1234}), in_unit({"budget": 6})
    (' with 1,234 tokens', '')
    """
    unit = facts.get("budget_unit", "samples")
    return "" if unit == "samples" else f" with {facts['size']:,} {unit}"


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


def correlation(value: float | None) -> str:
    """A correlation coefficient; None where it is not defined, as one of the two is constant.

    >>> correlation(-0.5312), correlation(None)
    ('-0.53', 'not defined')
    """
    return "not defined" if value is None else f"{value:.2f}"


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
    """A duration, to a tenth of its unit.

    >>> [seconds(x) for x in (0.03, 77.36, 1234.5, 132_732)]
    ['0.0 s', '77.4 s', '20.6 min', '36.9 h']
    """
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def memory(size: int) -> str:
    """Bytes in MiB, the unit of `effort.batch_memory`.

    >>> memory(1_383_510_016)
    '1,319 MiB'
    """
    return f"{size / 2**20:,.0f} MiB"


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


def listed(names: Sequence[str]) -> str:
    """Join names as a sentence does.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


# Control characters but for the tab and the line end, what turns text round or is not seen, and halves of characters.
_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def harmless(text: str, *, one_line: bool = False) -> str:
    r"""The text with an escape for each character that a terminal would act on and not show; one_line: line ends too.

    >>> harmless("a\x1b[2Jb\u202ec"), harmless("a\nb", one_line=True)
    ('a\\x1b[2Jb\\u202ec', 'a\\nb')
    """
    text = text.replace("\n", "\\n") if one_line else text
    return _HARMFUL.sub(lambda match: escaped(match[0]), text)


def escaped(char: str) -> str:
    """A character by its number, as Python and YAML write it between quotes."""
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def cut(text: str, width: int) -> str:
    """The text, or its beginning.

    >>> cut("abcdef", 4)
    'abc…'
    """
    return text if len(text) <= width else text[: width - 1] + "\u2026"
