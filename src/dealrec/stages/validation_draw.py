"""The validation samples that a signal is tuned on."""

from collections.abc import Sequence

import polars as pl

from dealrec.config import Config
from dealrec.config.arms import replicate_seed
from dealrec.errors import ConfigError
from dealrec.stages.context import Context

ENOUGH = 512  # below, a signal was seen to say little


def require_validation(config: Config, signal: str, there: int) -> None:
    """Raise ConfigError where there are no validation samples to tune on: one, and for two halves (data.final) two."""
    least = 2 if config.data.final else 1
    if there < least:
        raise ConfigError(
            f"{signal} needs validation samples to aim at, at least {least}; there are {there}",
            "Raise data.valid_share, or choose a method that does without: dealrec methods.",
        )


def folds(context: Context, there: int, wanted: int) -> list[list[int]]:
    """The validation samples to tune on: one fold; two halves where they are candidates themselves (data.final).

    Rows of `data/samples-valid.parquet`. What is tuned on a half scores the other, so that no sample is scored by a
    model that was tuned on it.
    """
    drawn = draw_validation(context, there, wanted)
    if not context.config.data.final:
        return [drawn]
    import torch

    generator = torch.Generator().manual_seed(replicate_seed(context.config) + 1)
    order = [drawn[place] for place in torch.randperm(len(drawn), generator=generator).tolist()]
    return [sorted(order[::2]), sorted(order[1::2])]


def candidates_of_folds(context: Context, valid_ids: pl.Series, drawn: Sequence[Sequence[int]]) -> list[pl.Series]:
    """Of each fold the ids that are candidates: all where validation samples are (data.final), else none."""
    return [valid_ids[fold] if context.config.data.final else valid_ids.head(0) for fold in drawn]


def cross_fitted(drops: Sequence[pl.Series], ids: pl.Series, tuned_on: Sequence[pl.Series]) -> pl.Series:
    """Of each sample the mean of its drops by the models that were not tuned on it.

    drops: of each fold, of all samples in the order of ids. tuned_on: of each fold the ids that it was tuned on; a fold
    of samples that are no candidates holds none of them.
    """
    columns = [
        pl.select(pl.when(ids.is_in(held.implode())).then(None).otherwise(drop)).to_series()
        for drop, held in zip(drops, tuned_on, strict=True)
    ]
    return pl.select(pl.mean_horizontal(columns)).to_series()


def draw_validation(context: Context, there: int, wanted: int) -> list[int]:
    """Which of the validation samples: at most so many, drawn from the seed, ascending.

    Warns where there are too few to say much; raises ConfigError where there are none.
    """
    import torch

    require_validation(context.config, context.name, there)
    count = min(wanted, there)
    if count < ENOUGH:
        context.warn(
            f"{context.name} is tuned on {count:,} validation samples; below {ENOUGH:,} it was seen to say little"
        )
    generator = torch.Generator().manual_seed(replicate_seed(context.config))
    return sorted(torch.randperm(there, generator=generator)[:count].tolist())
