"""How docstrings are read for the site: examples as code, and the parameters that their prose explains in bold."""

import re
from collections.abc import Iterator
from typing import Any

import griffe

EXAMPLE = re.compile(r"(?:^>>> .*\n?(?:^(?!\s*$).*\n?)*)+", flags=re.MULTILINE)
FENCE = re.compile(r"(```.*?```)", flags=re.DOTALL)


class Prose(griffe.Extension):
    """Prepares the docstrings of functions, classes and their methods for Markdown."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """A function's parameters are what its docstring may explain."""
        _prepare(func, [parameter.name for parameter in func.parameters])

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """A class explains its fields and the parameters of its constructor."""
        names = [name for name, member in cls.members.items() if member.is_attribute]
        if isinstance(init := cls.members.get("__init__"), griffe.Function):
            names += [parameter.name for parameter in init.parameters]
        _prepare(cls, names)


def _prepare(thing: griffe.Object, names: list[str]) -> None:
    if thing.docstring is not None:
        thing.docstring.value = prepared(thing.docstring.value, names)


def prepared(text: str, names: list[str]) -> str:
    """The docstring with its examples fenced, and `name:` at the beginning of a sentence in bold."""
    fenced = EXAMPLE.sub(lambda match: f"```pycon\n{match[0].rstrip()}\n```\n", text)
    return "".join(_with_bold(fenced, names))


def _with_bold(text: str, names: list[str]) -> Iterator[str]:
    known = "|".join(sorted(map(re.escape, set(names) - {"self", "cls"}), key=len, reverse=True))
    explained = re.compile(rf"(?:(?<=[.;)] )|^)((?:(?:{known})(?:, | and )?)+)(?=(?: None)?:[ \n])", flags=re.MULTILINE)
    for part in FENCE.split(text):
        if part.startswith("```") or not known:
            yield part
        else:
            yield explained.sub(lambda match: re.sub(known, r"**`\g<0>`**", match[0]), part)
