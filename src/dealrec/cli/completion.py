"""What the shell offers where a value is typed; every answer must come at once."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


def among(names: Sequence[str]) -> Callable[[str], list[str]]:
    """Offer those of the names that begin as what is typed."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


def preset(incomplete: str) -> list[str]:
    """The names of presets."""
    from dealrec.config.presets import PRESETS

    return among(list(PRESETS))(incomplete)


def arm(ctx: typer.Context, incomplete: str) -> list[str]:
    """The arms of the run directory that stands before; the usual ones where it cannot be read."""
    selections, randoms = 1, 1
    # While an option has no value yet, the arguments before it are not bound to their names.
    for folder in (ctx.params.get("run_dir") or "", *ctx.args):
        try:
            select = json.loads((Path(folder) / "config.json").read_bytes())["select"]
            selections, randoms = int(select["selections"]), int(select["random_arms"])
            break
        except (OSError, ValueError, KeyError, TypeError):
            continue
    names = ["selected", *(f"selected-{number}" for number in range(1, selections))]
    return among([*names, *(f"random-{number}" for number in range(randoms))])(incomplete)


def override(incomplete: str) -> list[str]:
    """`name=` of settings; of one that is named in full, with its values, or with its default."""
    from dealrec.config.files import settings

    name, equals, value = incomplete.partition("=")
    matches: dict[str, list[FieldInfo]] = {}
    for key, field in settings():
        if key == name or (key.startswith(name) and not equals):
            matches.setdefault(key, []).append(field)
    if equals:
        return [
            f"{key}={word}"
            for key, fields in matches.items()
            for word in _values(key, fields)
            if word.startswith(value)
        ]
    # With its default beside it, the only setting left is not the only answer: the shell puts no space after the `=`.
    examples = [f"{key}={_values(key, fields)[0]}" for key, fields in matches.items() if len(matches) == 1]
    return [f"{key}=" for key in matches] + examples


def _values(key: str, fields: "Sequence[FieldInfo]") -> list[str]:
    """The default, and the words and truths that it may be."""
    from dealrec.config import Config
    from dealrec.config.files import choices

    value: Any = Config()
    for name in key.split("."):
        value = getattr(value, name, fields[0].default)  # of another kind than the default section
    words = [word for field in fields for word in choices(field.annotation)]
    default = str(value) if isinstance(value, str | Path) else json.dumps(value)
    return list(dict.fromkeys([*([default] if "\n" not in default else []), *words]))
