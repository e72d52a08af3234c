"""Writes the references of the command line and of the settings from what they describe: make reference."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Schema = dict[str, Any]

LIMITS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
TYPES = {"string": "text", "integer": "integer", "number": "number", "boolean": "`true` or `false`", "null": "`null`"}
FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- Generated from the {source} by docs/generate.py; change that, then: make reference -->\n"


def pages() -> dict[str, str]:
    """The generated pages: text by file name."""
    return {
        "cli.md": NOTE.format(source="commands") + "\n".join(_command_line()) + "\n",
        "settings.md": NOTE.format(source="settings") + "\n".join(_settings()) + "\n",
    }


def _command_line() -> Iterator[str]:
    import typer.main

    from dealrec.cli.commands import app

    group: Any = typer.main.get_command(app)
    yield "# Command line\n"
    yield (
        "Results go to stdout; progress, warnings and notes go to stderr. Exit status: **0** done, **2** something that"
        " you can mend (one line says what and how), **1** a fault of dealrec's, **130** (Ctrl-C), **143** or **129**"
        " ended by a signal: the same command goes on from there.\n"
    )
    for parameter in group.params:
        called, text = parameter.get_help_record(group.make_context("dealrec", [], resilient_parsing=True))
        yield f"`dealrec {called}`\n:   {_with_facts(text)}\n"
    for name, command in group.commands.items():
        context = command.make_context(f"dealrec {name}", [], resilient_parsing=True)
        records = [(parameter, parameter.get_help_record(context)) for parameter in command.params]
        shown = [(parameter, _called(parameter, record[0]), record[1]) for parameter, record in records if record]
        needed = [called for parameter, called, _ in shown if parameter.required or _is_argument(parameter)]
        yield f"## dealrec {name}\n"
        yield f"{command.help}\n"
        yield "```text\n" + " ".join(["dealrec", name, *needed, "[OPTIONS]"]) + "\n```\n"
        for _, called, text in shown:
            yield f"`{called}`\n:   {_with_facts(text)}\n"


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _called(parameter: Any, shown: str) -> str:
    """As the help shows it; an argument in capitals without its type, in brackets where it may be left out."""
    if not _is_argument(parameter):
        return shown
    name = shown.partition(" <")[0].strip("[]").upper()
    return name if parameter.required else f"[{name}]"


def _with_facts(text: str) -> str:
    """What the help has in brackets at its end, as a sentence of its own."""
    said, bracket, facts = text.partition("  [")
    return said + (f" *{facts.rstrip(']').capitalize()}.*" if bracket else "")


def _settings() -> Iterator[str]:
    from dealrec.config import Config

    schema = Config.model_json_schema()
    yield "# Settings\n"
    yield (
        "Every key of the config file, in the order of the pipeline. `dealrec config` prints them all with their"
        " defaults, `dealrec config --schema` as a JSON Schema for editors; `--set section.key=value` overrides one."
        " Unknown keys are refused. Relative paths are relative to the config file.\n"
    )
    top = schema["properties"]
    yield "## At the top\n"
    for name, field in top.items():
        if "$ref" not in field:
            yield from _setting(name, name, field, schema)
    for name, field in top.items():
        if "$ref" in field:
            yield from _section(name, field, field["default"], schema, level=2)


def _section(path: str, field: Schema, defaults: Schema, schema: Schema, *, level: int) -> Iterator[str]:
    """A section's settings, then the sections within it. defaults: those that this section has where it stands."""
    model = _resolved(field, schema)
    yield f"{'#' * level} {path} {{ #{path} }}\n"
    yield f"{_escaped(field.get('description') or model['description'])}\n"
    properties = model["properties"]
    sections = {name: each for name, each in properties.items() if "$ref" in each or "oneOf" in each}
    for name, each in properties.items():
        if name not in sections:
            yield from _setting(
                f"{path}.{name}", name, {**each, **({"default": defaults[name]} if name in defaults else {})}, schema
            )
    for name, each in sections.items():
        inner = _kinds if "oneOf" in each else _section
        yield from inner(f"{path}.{name}", each, defaults.get(name, each["default"]), schema, level=level + 1)


def _kinds(path: str, field: Schema, defaults: Schema, schema: Schema, *, level: int) -> Iterator[str]:
    """A section that may be of several kinds, each with settings of its own."""
    yield f"{'#' * level} {path} {{ #{path} }}\n"
    yield f"{_escaped(field['description'])} *Default: kind {defaults['kind']}.*\n"
    for option in field["oneOf"]:
        model = _resolved(option, schema)
        kind = model["properties"]["kind"]["const"]
        yield f"{'#' * (level + 1)} kind: {kind} {{ #{path}.{kind} }}\n"
        yield f"{_escaped(model['description'])}\n"
        for name, each in model["properties"].items():
            if name != "kind":
                yield from _setting(f"{path}.{kind}.{name}", name, each, schema)


def _setting(path: str, name: str, field: Schema, schema: Schema) -> Iterator[str]:
    default = json.dumps(field["default"], ensure_ascii=False)
    yield f"`{name}`{{ #{path} }}\n:   {_escaped(field['description'])}\n"
    yield f"    {_allowed(field, schema)}; default `{default}`\n    {{ .facts }}\n"


def _allowed(field: Schema, schema: Schema) -> str:
    """What a value may be, in words."""
    if "$ref" in field:
        return f"a section as `{field['$ref'].rpartition('/')[2].removesuffix('Config').lower()}`"
    if "anyOf" in field:
        return ", or ".join(_allowed(each, schema) for each in field["anyOf"])
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field["type"] == "array":
        least = ", at least one" if field.get("minItems") else ""
        return f"list{least} of: {_allowed(field['items'], schema)}"
    if field["type"] == "object":
        return f"names, each with {_allowed(field['additionalProperties'], schema)}"
    limits = [f"{word} {field[key]}" for key, word in LIMITS.items() if key in field]
    named = "path" if field.get("format") == "path" else TYPES[field["type"]]
    return " ".join([named, " and ".join(limits)]).strip()


def _resolved(field: Schema, schema: Schema) -> Schema:
    found: Schema = schema["$defs"][field["$ref"].rpartition("/")[2]]
    return found


def _escaped(text: str) -> str:
    """A description for Markdown, in which stars, braces and the like would mean something else."""
    return re.sub(r"([*{}_<>|$])", r"\\\1", text)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file_name, content in pages().items():
        (FOLDER / file_name).write_text(content, encoding="utf-8")
        print(FOLDER / file_name, file=sys.stderr)
