"""YAML as somebody else may have written it: what it says, or in words why it cannot be taken."""

from typing import Any

import yaml

LONGEST = 2**22  # characters; a config is some thousand
MOST_VALUES = 100_000  # with those that anchors repeat: ten lines of YAML can stand for billions


def parse_yaml(text: str) -> Any:
    """The value of a YAML document. Raises ValueError, whose text goes on from its name, for what is none or too large.

    >>> parse_yaml("a: [1, yes]")
    {'a': [1, True]}
    """
    if len(text) > LONGEST:
        raise ValueError(f"has {len(text):,} characters, and {LONGEST:,} is the most that is read")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"is not valid YAML{_place(error)}") from None
    except RecursionError:
        raise ValueError("is not valid YAML: it is nested too deeply") from None
    except Exception as error:  # what makes numbers and dates of texts raises as it likes
        raise ValueError(f"is not valid YAML: {str(error).splitlines()[0] if str(error) else error!r}") from None
    _check_values(value)
    return value


def _place(error: yaml.YAMLError) -> str:
    """What YAML stumbled over, and where."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f" at line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else f": {error}".replace("\n", " ")


def _check_values(document: Any) -> None:
    """Raise ValueError for too many values, as of anchors that repeat one another, and for a key that is no text."""
    left, count = [document], 0
    while left:
        value = left.pop()
        count += 1
        if count > MOST_VALUES:
            raise ValueError(f"holds more than {MOST_VALUES:,} values, those that anchors repeat among them")
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str | int | float | None):
                    raise ValueError(f"has a key that is no text: {key!r}")
            left += value.values()
        elif isinstance(value, list | tuple | set):
            left += value
