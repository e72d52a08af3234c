"""The validation samples that a signal is tuned on."""

from dealrec.config.arms import replicate_seed
from dealrec.errors import ConfigError
from dealrec.stages.context import Context

LEAST, ENOUGH = 16, 1024  # below the one a signal is refused, below the other it was seen to say little


def draw_validation(context: Context, there: int, wanted: int) -> list[int]:
    """Which of the validation samples: at most so many, drawn from the seed, ascending.

    Warns where there are too few to say much; raises ConfigError where there are hardly any.
    """
    import torch

    if there < LEAST:
        raise ConfigError(
            f"{context.name} needs validation samples to aim at, at least {LEAST}; there are {there}",
            "Raise data.valid_share, or choose a method that does without: dealrec methods.",
        )
    count = min(wanted, there)
    if count < ENOUGH:
        context.warn(
            f"{context.name} is tuned on {count:,} validation samples; below {ENOUGH:,} it was seen to say little"
        )
    generator = torch.Generator().manual_seed(replicate_seed(context.config))
    return sorted(torch.randperm(there, generator=generator)[:count].tolist())
