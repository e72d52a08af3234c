"""JSON on stdout, as every reader of JSON takes it."""

import json
import math
from collections.abc import Mapping
from typing import Any


def print_json(value: Any) -> None:
    """Print nested mappings and lists in one line; NaN and infinities, which JSON has not, are null."""
    print(json.dumps(finite(value), default=str, allow_nan=False))


def finite(value: Any) -> Any:
    """The same with None in the place of NaN and infinities.

    >>> finite({"a": [1.5, float("nan")], 2: (float("inf"), "x")})
    {'a': [1.5, None], 2: [None, 'x']}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    return [finite(inner) for inner in value] if isinstance(value, list | tuple) else value
