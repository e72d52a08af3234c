"""Ids of items, users and interactions as numbers, so that each is kept once however many rows name it."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from dealrec.data.readers.layouts import RowFault
from dealrec.data.values import PLACEHOLDERS


@dataclass
class Codes:
    """Numbers from 0 on for ids, so that each is kept once however many rows name it. texts: the ids, by number."""

    texts: list[str] = field(default_factory=list)
    numbers: dict[int | str, int] = field(default_factory=dict)

    def of(self, value: Any, name: str) -> int:
        """The number of an id: 7 and "7" are one. name: of the field, for the RowFault where it is no id."""
        plain = type(value) is int or type(value) is str
        if plain and (number := self.numbers.get(value)) is not None:
            return number
        text = as_id(value, name)
        number = self.numbers.setdefault(text, len(self.texts))
        if number == len(self.texts):
            self.texts.append(text)
        if plain:
            self.numbers[value] = number
        return number


@dataclass
class Vocabulary:
    """The items, users and interactions that the rows of all parts name."""

    items: Codes = field(default_factory=Codes)
    users: Codes = field(default_factory=Codes)
    interactions: Codes = field(default_factory=Codes)


def as_id(value: Any, name: str) -> str:
    """An id as text: of 7, 7.0 and "7" alike. name: of the field, for the RowFault where it is none."""
    if isinstance(value, float | Decimal) and value == value // 1:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or is_blank(value):
        raise RowFault(f"has no id in '{name}', but {value!r:.40}", "Write ids as whole numbers or text.")
    try:
        return str(value).encode().decode()
    except ValueError:  # half a character, or thousands of digits
        raise RowFault(f"has an id in '{name}' that is no text", "Write ids as whole numbers or text.") from None


def is_blank(value: Any) -> bool:
    """Whether there is nothing, as in `values.missing`: null, NaN, blank text, or text that spells it out, as NULL.

    >>> [is_blank(value) for value in (None, float("nan"), " ", "NULL ", 0, "0", [])]
    [True, True, True, True, False, False, False]
    """
    if isinstance(value, str):
        return value.strip() in ("", *PLACEHOLDERS)
    return value is None or (isinstance(value, float | Decimal) and value != value)
