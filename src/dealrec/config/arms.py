"""The arms of a run and their trainings: names, folders and seeds.

The first of everything has the run's seed and the plain name; what comes after has a seed derived from it.
"""

import hashlib
from dataclasses import dataclass

from dealrec.config.selection import Budget, Options
from dealrec.config.settings import Config

BASE, SELECTED, RANDOM = "base", "selected", "random"  # the kinds of arms
ARMS = ("select.selections", "select.random_arms", "select.arms")  # the settings of which there are
SEEDS = ("seed", "replicate")  # the settings of what is drawn from the surrogate on
_SELECTION, _TRAINING, _REPLICATE, _ARM, _WARM_START = 1, 2, 3, 4, 5  # streams of derived seeds


@dataclass(frozen=True)
class Arm:
    """A selection: the method that makes it, of how many samples, and the seed of what the method draws.

    learning_rate: of its fine-tuning; None: that of all.
    """

    method: str
    budget: Budget
    options: Options
    seed: int
    learning_rate: float | None = None


@dataclass(frozen=True)
class FineTuning:
    """One training of an arm. training: its number; seed: of the order of the samples and of dropout.

    learning_rate: None: that of all arms.
    """

    arm: str
    training: int
    seed: int
    learning_rate: float | None = None

    @property
    def name(self) -> str:
        """Of its folder: the arm's, and the training's number unless it is the first.

        >>> FineTuning("random-0", 0, 7).name, FineTuning("random-0", 2, 7).name
        ('random-0', 'random-0+2')
        """
        return f"{self.arm}+{self.training}" if self.training else self.arm


def replicate_seed(config: Config) -> int:
    """The seed of everything from the surrogate on but for the warm start, the data and the test users."""
    return _derived(config.seed, _REPLICATE, config.replicate)


def warm_seed(config: Config) -> int:
    """The seed of everything that the warm start draws."""
    return _derived(config.seed, _WARM_START, config.warm_replicate)


def selected_arms(config: Config) -> dict[str, int]:
    """The method's selections, each with its seed: `selected`, which is exported, `selected-1` and so on."""
    names = [SELECTED, *(f"{SELECTED}-{number}" for number in range(1, config.select.selections))]
    return {name: _derived(replicate_seed(config), _SELECTION, number) for number, name in enumerate(names)}


def random_arms(config: Config) -> list[str]:
    """The random selections: `random-0` and so on."""
    return [f"{RANDOM}-{number}" for number in range(config.select.random_arms)]


def arms(config: Config) -> dict[str, Arm]:
    """Every selection of a run, by name: the method's, the random ones, and those of `select.arms`.

    What a random arm draws is independent of what any other arm draws.
    """
    settings, seed = config.select, replicate_seed(config)
    options = settings.options
    if settings.method == "dealrec":  # whose options have been settings from the first
        options = settings.model_dump(include={"effort_weight", "strata", "hard_prune"}) | options
    rate = settings.learning_rate
    chosen = {
        name: Arm(settings.method, settings.budget, options, own, rate) for name, own in selected_arms(config).items()
    }
    randoms = {
        name: Arm(RANDOM, settings.budget, {}, seed * 1_000 + number + 1, rate)
        for number, name in enumerate(random_arms(config))
    }
    further = {
        name: Arm(
            arm.method,
            arm.budget or settings.budget,
            arm.options,
            _derived(seed, _ARM, _number(name)),
            arm.learning_rate,
        )
        for name, arm in settings.arms.items()
    }
    return chosen | randoms | further


def fine_tunings(config: Config) -> list[FineTuning]:
    """Every training of every arm. All arms have the same training seeds."""
    seed = replicate_seed(config)
    seeds = [_derived(seed, _TRAINING, number) for number in range(config.finetune.seeds)]
    return [
        FineTuning(name, number, seed, arm.learning_rate)
        for name, arm in arms(config).items()
        for number, seed in enumerate(seeds)
    ]


def _number(name: str) -> int:
    """A number from 1 on that follows from the name alone, whatever other arms there are."""
    return 1 + int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])


def _derived(seed: int, stream: int, number: int) -> int:
    """The seed itself for number 0; below 2^32. Streams and numbers are independent of one another."""
    import numpy as np

    if not number:
        return seed
    return int(np.random.SeedSequence(seed, spawn_key=(stream, number)).generate_state(1)[0])
