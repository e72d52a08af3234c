"""Settings to and from YAML: reading with helpful errors, and writing with a comment on each key."""

import difflib
import functools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from dealrec.config.documents import parse_yaml
from dealrec.config.selection import ArmConfig
from dealrec.config.settings import Config
from dealrec.config.solvers import FOLDER_OR_ID
from dealrec.errors import ConfigError
from dealrec.formats import escaped

SectionT = TypeVar("SectionT", bound=BaseModel)


def load(path: Path, overrides: Sequence[str] = (), *, base: Path | None = None) -> Config:
    """Read a YAML file; relative paths in it are relative to `base`, by default its folder.

    overrides: `key.sub=value` each; paths in them are relative to the working directory.
    Raises ConfigError for what cannot be read, an unknown key (the nearest is suggested) or a bad value.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"There is no config file {path}", "Write one with: dealrec init") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"The config file {path} cannot be read ({error})", "Give a YAML file in UTF-8.") from None
    try:
        raw = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{path} {error}", "Compare it with: dealrec config") from None
    if not isinstance(raw, dict | None):
        raise ConfigError(f"{path} holds a {type(raw).__name__}, not keys", "Compare it with: dealrec config")
    return parse(raw or {}, base=base or path.parent, overrides=overrides)


def parse(raw: Mapping[str, Any], *, base: Path, overrides: Sequence[str] = ()) -> Config:
    """Settings from nested mappings; relative paths are resolved against `base`."""
    config = checked(overridden(raw, overrides))
    for key in _path_settings():
        value = _value(config, key)
        if isinstance(value, list):
            config = with_setting(config, key.split("."), [_resolve(path, base) for path in value])
        elif value is not None:
            location = _folder_or_id(value, base) if isinstance(value, str) else _resolve(value, base)
            config = with_setting(config, key.split("."), location)
    return _with_method_files(config, base)


def _value(config: Config, key: str) -> Any:
    """Of a setting; None where the section that it is in is not given."""
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name, None)
    return value


def _with_method_files(config: Config, base: Path) -> Config:
    """The same with the paths of the user's own methods resolved."""

    def located(name: str) -> str:
        return str(_resolve(Path(name), base)) if name.endswith(".py") else name

    def located_arm(arm: ArmConfig) -> ArmConfig:
        return arm.model_copy(update={"method": located(arm.method)})

    arms = {name: located_arm(arm) for name, arm in config.select.arms.items()}
    methods = [located(arm) if isinstance(arm, str) else located_arm(arm) for arm in config.compare.methods]
    for key, value in {
        "pool.method": located(config.pool.method),
        "select.method": located(config.select.method),
        "select.arms": arms,
        "compare.methods": methods,
    }.items():
        config = with_setting(config, key.split("."), value)
    return config


def checked(raw: Mapping[str, Any]) -> Config:
    """Settings from nested mappings, paths as they stand. Raises ConfigError for an unknown key or a bad value."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise _config_error(error) from None


def with_setting(section: SectionT, names: Sequence[str], value: Any) -> SectionT:
    """A copy in which the setting below is another."""
    inner = value if len(names) == 1 else with_setting(getattr(section, names[0]), names[1:], value)
    return section.model_copy(update={names[0]: inner})


@functools.cache
def _path_settings() -> dict[str, bool]:
    """The settings that are paths, and whether they may be a model id in the place of one."""
    paths = {}
    for key, field in settings():
        may_be_id = FOLDER_OR_ID in field.metadata
        if may_be_id or Path in (field.annotation, *get_args(field.annotation)):
            paths[key] = may_be_id
    return paths


def overridden(raw: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of nested mappings with `key.sub=value` set; ConfigError for what is not of that form."""
    try:
        merged: dict[str, Any] = json.loads(json.dumps(raw, default=str))
    except (TypeError, ValueError, RecursionError) as error:  # as numbers of thousands of digits
        raise ConfigError(f"The settings cannot be read: {error}", "Compare them with: dealrec config") from None
    for override in overrides:
        _set(merged, override)
    return merged


def _resolve(path: Path, base: Path) -> Path:
    try:
        whole = (base / _expanded(path)).resolve()
        whole.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, with a null in it, not UTF-8, links in a circle
        raise ConfigError(f"{str(path)[:100]!a} is no path: {error}", "Give one that the system can take.") from None
    return whole


def _expanded(path: Path) -> Path:
    """With the home folder in the place of `~`; what merely begins so, like the file `~x.csv`, as it is."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _folder_or_id(name: str, base: Path) -> str:
    """The absolute path of a folder; a model id of the hub as it is."""
    folder = _resolve(Path(name), base)
    return str(folder) if folder.is_dir() or name.startswith((".", "/", "~")) else name


def section_of(raw: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """Where in nested mappings a dotted name belongs, made if it is not there, and the name's last part."""
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(raw.get(parent), dict):
            raw[parent] = {}
        raw = raw[parent]
    return raw, last


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their dotted names as nested mappings."""
    raw: dict[str, Any] = {}
    for key, value in values.items():
        section, last = section_of(raw, key)
        section[last] = value
    return raw


def _set(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override!r} is not of the form key=value", "For example: --set select.budget=1024")
    raw, last = section_of(raw, key.strip())
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"The value of {override!r:.200} {error}", "Quote it.") from None
    if value == "" and text.strip() in ("|", ">"):  # to YAML the mark of an empty block
        value = text.strip()
    paths = _path_settings()
    if key in paths and isinstance(value, str) and (not paths[key] or _expanded(Path(value)).exists()):
        value = str(_resolve(Path(value), Path.cwd()))
    if key.endswith(".method") and str(value).endswith(".py"):
        value = str(_resolve(Path(value), Path.cwd()))
    if key.endswith("solver.kind") and raw.get(last, "cg") != value:
        raw.clear()  # the keys beside it are those of another kind
    raw[last] = value


def _config_error(error: ValidationError) -> ConfigError:
    """The first problem in one line; an unknown key goes before what it may have caused."""
    problems = error.errors(include_url=False)
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    path = [str(part) for part in first["loc"]]
    unknown = first["type"] == "extra_forbidden"
    names, model = _walk(path, unknown=unknown)
    key = ".".join(names)
    if not key:  # of several settings together
        message = _message(first)
        return ConfigError(message[0].upper() + message[1:], "See: dealrec config")
    if unknown and model is not None:
        near = _nearest(names)
        remedy = f"Did you mean {near}?" if near else f"Known here: {', '.join(model.model_fields)}."
        return ConfigError(f"Unknown setting {key!r}", remedy)
    # A setting that may be of several types has a problem for each.
    variants = [problem for problem in problems if problem["loc"][: len(names)] == first["loc"][: len(names)]]
    message = ", or: ".join(dict.fromkeys(_message(problem) for problem in variants))
    message = message[0].lower() + message[1:]
    if isinstance(first["input"], dict):  # of several settings of a section together, which the message names
        return ConfigError(f"Section {key}: {message}", "See: dealrec config")
    value = json.dumps(first["input"], default=str)[:60]
    meaning = _description(names)
    remedy = f"It means: {meaning}" if meaning else "See: dealrec config"
    return ConfigError(f"Setting {key} = {value}: {message}", remedy)


def _nearest(names: Sequence[str]) -> str | None:
    """The setting that an unknown one may have meant: one beside it, one of that name elsewhere, or one like it."""
    *parents, last = names
    leaves = list(dict.fromkeys(key for key, _ in settings()))
    sections = dict.fromkeys(key.rsplit(".", 1)[0] for key in leaves if "." in key)
    keys = [*sections, *leaves]
    beside = {key.rsplit(".", 1)[-1]: key for key in keys if key.split(".")[:-1] == parents}
    elsewhere = {key.rsplit(".", 1)[-1]: key for key in reversed(keys)}
    for candidates, cutoff in ((beside, 0.7), (elsewhere, 0.9), (beside, 0.4), (elsewhere, 0.7)):
        if near := difflib.get_close_matches(last, candidates, n=1, cutoff=cutoff):
            return candidates[near[0]]
    return None


def _message(problem: Any) -> str:
    return str(problem["msg"]).removeprefix("Value error, ")


def _walk(path: Sequence[str], *, unknown: bool) -> tuple[list[str], type[BaseModel] | None]:
    """The keys of an error's location without the branches of unions, and the model that holds the last key.

    unknown: the last part is a key that there is not.
    """
    model: type[BaseModel] | None = Config
    holder, names = model, []
    for part in path:
        holder = model
        if model is None or part not in model.model_fields:
            if (unknown and part is path[-1]) or part.isdigit():
                names.append(part)
            continue
        names.append(part)
        inner = list(_models(model.model_fields[part].annotation))
        model = inner[0] if len(inner) == 1 else None
        if len(inner) > 1:  # a union told apart by `kind`; the next part names the branch
            branch = path[len(names) : len(names) + 1]
            model = next((m for m in inner if m.model_fields["kind"].default in branch), None)
    return names, holder


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Annotated, Union, UnionType):
        for argument in get_args(annotation):
            yield from _models(argument)


def _description(names: Sequence[str]) -> str | None:
    model: type[BaseModel] | None = Config
    description = None
    for name in names:
        if model is None or name not in model.model_fields:
            continue
        field = model.model_fields[name]
        description = field.description
        model = next(_models(field.annotation), None)
    return description


def commented(
    config: Config | None = None, *, keys: Collection[str] | None = None, notes: Mapping[str, str] | None = None
) -> str:
    """The settings as YAML, each key with its description and, where only some values are allowed, those.

    keys: the dotted names of the settings and whole sections that are written; None: all. notes: by dotted name, a
    further line of comment.
    """
    return "\n".join(_lines(config or Config(), "", keys, notes or {})) + "\n"


def _lines(section: BaseModel, prefix: str, keys: Collection[str] | None, notes: Mapping[str, str]) -> Iterator[str]:
    pad = "  " * prefix.count(".")
    for name, field in type(section).model_fields.items():
        key, value = f"{prefix}{name}", getattr(section, name)
        if keys is not None and not any(f"{key}.".startswith(f"{k}.") or k.startswith(f"{key}.") for k in keys):
            continue
        if not prefix and name != "seed":
            yield ""
        words = choices(field.annotation) if get_origin(field.annotation) is Literal else ()
        allowed = f" [{' | '.join(words)}]" if len(words) > 1 else ""
        yield f"{pad}# {field.description}{allowed}"
        if key in notes:
            yield f"{pad}# {printable(notes[key])}"
        if isinstance(value, BaseModel):
            yield f"{pad}{name}:"
            yield from _lines(value, f"{key}.", keys, notes)
        else:
            plain = to_jsonable_python(value)  # sections in a list, too
            yield f"{pad}{name}: {printable(json.dumps(plain, ensure_ascii=False))}"


def printable(text: str) -> str:
    r"""The text with an escape, as YAML reads it within double quotes, for what YAML does not take as it is.

    >>> printable("a\x85b")
    'a\\x85b'
    """
    return "".join(char if char.isprintable() and char != "\ufeff" else escaped(char) for char in text)


def choices(annotation: Any) -> tuple[str, ...]:
    """The words that a setting of this type may be, `null` among them where it may; none if it is of another kind."""
    if get_origin(annotation) is Literal:
        return tuple(str(value) for value in get_args(annotation))
    if annotation is type(None):
        return ("null",)
    if annotation is bool:
        return ("true", "false")
    if get_origin(annotation) in (Annotated, Union, UnionType):
        return tuple(word for argument in get_args(annotation) for word in choices(argument))
    return ()


def settings(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """The dotted name of every setting that is no section, in order; where a section is of several kinds, of each."""
    for name, field in model.model_fields.items():
        inner = list(_models(field.annotation))
        if not inner:
            yield f"{prefix}{name}", field
        for section in inner:
            yield from settings(section, f"{prefix}{name}.")
