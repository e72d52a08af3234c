"""What the engine needs of a pipeline's settings, and which of them make a result what it is."""

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """All settings of a pipeline: a tree of models that are immutable and have a default for everything."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seed: int = Field(0, ge=0, le=2**32 - 1, description="Seed of everything that is drawn.")

    def unread_sections(self) -> frozenset[str]:
        """Sections that nothing reads under these settings, such as those of an alternative that is not taken."""
        return frozenset()


def recorded(config: Settings, names: Iterable[str]) -> dict[str, Any]:
    """The settings of these dotted names in full, but for sections that nothing reads."""
    dumped, unread = config.model_dump(mode="json"), config.unread_sections()
    return {name: _at(dumped, name) for name in names if name.partition(".")[0] not in unread}


def leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted name and the value of each setting in nested mappings; an empty one is a value.

    >>> dict(leaves({"seed": 0, "data": {"split": "time", "columns": {"user": "u"}}, "select": {"arms": {}}}))
    {'seed': 0, 'data.split': 'time', 'data.columns.user': 'u', 'select.arms': {}}
    """
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def deviations(settings: Mapping[str, Any], kind: type[Settings]) -> dict[str, Any]:
    """What of recorded settings is not at its default: what a fingerprint holds of them.

    A setting that a later version adds is so no part of older fingerprints. (A default that a later version changes
    has to raise the version of the stages that read it.)
    """
    defaults = kind().model_dump(mode="json")
    pairs = ((name, value, _at(defaults, name)) for name, value in settings.items())
    return {name: _deviation(value, default) for name, value, default in pairs if value != default}


def _deviation(value: Any, default: Any) -> Any:
    if not isinstance(value, dict) or not isinstance(default, dict):
        return value
    absent = object()
    pairs = ((name, inner, default.get(name, absent)) for name, inner in value.items())
    return {name: _deviation(inner, usual) for name, inner, usual in pairs if inner != usual}


def _at(dumped: Mapping[str, Any], name: str) -> Any:
    return functools.reduce(lambda value, part: value[part], name.split("."), dumped)
