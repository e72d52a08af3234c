"""The sentence encoder that embeds titles: which one, whether it is whole, and what it gives."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dealrec.config import Config
from dealrec.recommenders.files import check_encoder, check_model, encoder_files, hub_commit


def encoder(config: Config) -> tuple[str, str]:
    """The encoder of `text`, and the setting that an error about it has to name."""
    return config.text.encoder or config.tiger.text_encoder, "text.encoder"


def check(name: str, setting: str) -> None:
    """Raise ModelError for an encoder that is not whole, or that neither this machine nor the hub has."""
    check_model(name, setting=setting, check=check_encoder)


def files(name: str, setting: str) -> Iterator[Path | str]:
    """What decides what it computes: the files of its directory, or its name on the hub with the commit."""
    if Path(name).is_dir():
        yield from encoder_files(Path(name))
    else:
        yield f"{name}@{_revision(name, setting)}"


def load(name: str, setting: str, *, warn: Callable[[str], None]) -> Any:
    """The encoder, as `load_text_encoder` makes it."""
    from dealrec.recommenders.tiger.files import load_text_encoder

    return load_text_encoder(name, revision=_revision(name, setting), warn=warn)


def _revision(name: str, setting: str) -> str | None:
    """Of an id of the hub its commit; None of a folder."""
    return None if Path(name).is_dir() else hub_commit(name, setting=setting)
