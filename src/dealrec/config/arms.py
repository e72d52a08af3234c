"""The arms of a run and their trainings: names, folders and seeds.

The first of everything has the run's seed and the plain name; what comes after has a seed derived from it.
"""

from dataclasses import dataclass

from dealrec.config.settings import Config

BASE, SELECTED, RANDOM = "base", "selected", "random"  # the kinds of arms
ARMS = ("select.selections", "select.random_arms")  # the settings of how many there are
_SELECTION, _TRAINING = 1, 2  # streams of derived seeds


@dataclass(frozen=True)
class FineTuning:
    """One training of an arm. training: its number; seed: of the order of the samples and of dropout."""

    arm: str
    training: int
    seed: int

    @property
    def name(self) -> str:
        """Of its folder: the arm's, and the training's number unless it is the first.

        >>> FineTuning("random-0", 0, 7).name, FineTuning("random-0", 2, 7).name
        ('random-0', 'random-0+2')
        """
        return f"{self.arm}+{self.training}" if self.training else self.arm


def selected_arms(config: Config) -> dict[str, int]:
    """The method's selections, each with its seed: `selected`, which is exported, `selected-1` and so on."""
    names = [SELECTED, *(f"{SELECTED}-{number}" for number in range(1, config.select.selections))]
    return {name: _seed(config, _SELECTION, number) for number, name in enumerate(names)}


def random_arms(config: Config) -> list[str]:
    """The random selections: `random-0` and so on."""
    return [f"{RANDOM}-{number}" for number in range(config.select.random_arms)]


def fine_tunings(config: Config) -> list[FineTuning]:
    """Every training of every arm. All arms have the same training seeds."""
    seeds = [_seed(config, _TRAINING, number) for number in range(config.finetune.seeds)]
    arms = [*selected_arms(config), *random_arms(config)]
    return [FineTuning(arm, number, seed) for arm in arms for number, seed in enumerate(seeds)]


def _seed(config: Config, stream: int, number: int) -> int:
    """The run's seed for number 0; below 2^32. Streams and numbers are independent of one another."""
    import numpy as np

    if not number:
        return config.seed
    return int(np.random.SeedSequence(config.seed, spawn_key=(stream, number)).generate_state(1)[0])
