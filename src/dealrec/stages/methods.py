"""The methods that the settings name, and the signals that they need."""

import importlib.util
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from dealrec.columns import OF_RECOMMENDER, TIMESTAMP
from dealrec.config import Config
from dealrec.config.arms import arms
from dealrec.engine.python_files import imported_files
from dealrec.errors import ConfigError

if TYPE_CHECKING:
    from dealrec.selection.methods import Method


def method(name: str) -> "Method":
    """The method of a name, or of the user's Python file. Raises ConfigError where there is none."""
    from dealrec.selection.methods import METHODS, nearest

    if name in METHODS:
        return METHODS[name]
    if name.endswith(".py"):
        return _of_file(Path(name))
    near = nearest(name, METHODS)
    raise ConfigError(
        f"There is no method {name!r}", f"Did you mean {near}?" if near else "See: dealrec methods; a file ends in .py."
    )


@cache
def _of_file(path: Path) -> "Method":
    from dealrec.selection.methods import method_of

    name = f"dealrec_method_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"The method {path} is no Python file", "Give the path of a .py file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises
        raise ConfigError(f"{path} failed with {type(error).__name__}: {error}", "Mend the file.") from error
    return method_of(path.stem, module)


def method_files(config: Config) -> list[Path]:
    """The user's own code of all arms and of the pool: what it holds can change the outcome."""
    names = dict.fromkeys([config.pool.method, *(arm.method for arm in arms(config).values())])
    return [file for name in names if name.endswith(".py") for file in imported_files(Path(name))]


def signals_of(config: Config) -> frozenset[str]:
    """The signals that the methods of all arms need, and of the pool's where any is the recommender's."""
    signals = frozenset(name for arm in arms(config).values() for name in method(arm.method).reads(arm.options))
    if not reads_pool(signals):
        return signals
    drawn_by = pool_method(config).reads({})
    if needless := frozenset(OF_RECOMMENDER) & frozenset(drawn_by):
        raise ConfigError(
            f"pool.method {config.pool.method!r} needs {', '.join(sorted(needless))}, which is known of the pool alone",
            "Choose a method of signals of the surrogate, or random: dealrec methods.",
        )
    return signals | frozenset(drawn_by)


def pool_method(config: Config) -> "Method":
    """The method that draws the pool; of a pool of all samples random, which needs no signals."""
    return method("random" if config.pool.size == 1.0 and isinstance(config.pool.size, float) else config.pool.method)


def require_times(config: Config, by: "Method") -> None:
    """Raise ConfigError for a method that reads times where there are none that users share."""
    if TIMESTAMP in by.signals and (config.data.columns.timestamp is None or config.data.format == "dealrec"):
        raise ConfigError(
            f"{by.name} needs times that can be compared between users, and there are none",
            "Name their column in data.columns.timestamp, or choose another method.",
        )


def reads_pool(signals: Iterable[str]) -> bool:
    """Whether any of the signals is the recommender's, and so known of the pool alone."""
    return not set(OF_RECOMMENDER).isdisjoint(signals)
