"""The recommenders that a run can be about: what the stages ask of each, and which one the settings name."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from dealrec.config import Config
from dealrec.stages.context import Context
from dealrec.stages.recommenders import bigrec, sid, tiger

if TYPE_CHECKING:
    from dealrec.recommenders.protocol import Recommender
    from dealrec.sequences import Sample

# Settings that can change how a recommender computes; those of the others are left out (`Config.unread_sections`).
SETTINGS = (
    "recommender",
    "llm.dtype",
    "llm.quantization",
    "llm.lora",
    "llm.prompt",
    "llm.rows",
    "sid",
    "tiger",
    "finetune.full",
)
WRITING = ("recommender", "llm.prompt", "sid", "tiger")  # those that a line of a training file depends on


class Kind(Protocol):
    """A module of this folder. It imports what is heavy inside its functions.

    TRAININGS: the sections of its trainings on the Trainer of transformers. TEXT: whether it reads text, or tokens of
    its own.
    """

    TRAININGS: tuple[str, ...]
    TEXT: bool

    def check(self, config: Config, run_dir: Path) -> list[str]:
        """What to warn of before anything is computed. Raises DealrecError where it could not work on the data."""
        ...

    def files(self, config: Config) -> Iterator[Path | str]:
        """What decides how it computes, outside of the run directory."""
        ...

    def machine(self, config: Config) -> list[str]:
        """What of the machine decides how it computes."""
        ...

    def warm_start(self, context: Context) -> None:
        """Fill the folder of the warmstart stage: what was learnt of the earlier part of the training period."""
        ...

    def start(self, context: Context) -> "Recommender":
        """What effort is scored on and fine-tuning starts from."""
        ...

    def save(self, recommender: Any, folder: Path) -> None:
        """Write what fine-tuning has changed."""
        ...

    def fine_tuned(self, context: Context, folder: Path | None) -> "Recommender":
        """What was saved; None: as it is without fine-tuning. In eval mode."""
        ...

    def lines(self, context: Context, samples: pl.DataFrame) -> Iterator[dict[str, Any]]:
        """Each sample as the line of a training file, in the order of the rows."""
        ...

    def encoded(self, context: Context, samples: pl.DataFrame) -> "list[Sample]":
        """Each sample as tokens and, where it reads text, as text; in the order of the rows."""
        ...

    def tokenizer(self, config: Config) -> Any:
        """What makes tokens of text; None where it reads none."""
        ...

    def start_folder(self, context: Context) -> Path | None:
        """The adapter or model that fine-tuning starts from; None: the pretrained model as it is."""
        ...


_KINDS: dict[str, Kind] = {"bigrec": bigrec, "sid": sid, "tiger": tiger}


def kind(config: Config) -> Kind:
    """The module of the recommender that the settings name."""
    return _KINDS[config.recommender]


def files(config: Config) -> Iterable[Path | str]:
    """What decides how the recommender computes, outside of the run directory."""
    return kind(config).files(config)


def machine(config: Config) -> list[str]:
    """What of the machine decides how the recommender computes."""
    return kind(config).machine(config)
