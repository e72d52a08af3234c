"""The recommenders that a run can be about: what the stages ask of each, and which one the settings name."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from dealrec.config import Config
from dealrec.pipeline.stage import Context

if TYPE_CHECKING:
    from dealrec.recommenders.protocol import Recommender


class Kind(Protocol):
    """A module of this folder. It imports what is heavy inside its functions."""

    def files(self, config: Config) -> Iterator[Path | str]:
        """What decides how it computes, outside of the run directory."""
        ...

    def check(self, config: Config, run_dir: Path) -> list[str]:
        """What to warn of before anything is computed. Raises DealrecError where it could not work on the data."""
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


def kind(config: Config) -> Kind:
    """The module of the recommender that the settings name."""
    from dealrec.pipeline import bigrec, tiger

    found: dict[str, Kind] = {"bigrec": bigrec, "tiger": tiger}
    return found[config.recommender]
