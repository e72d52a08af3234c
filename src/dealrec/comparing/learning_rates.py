"""One learning rate for each budget: that at which Random of its size does best on validation samples.

It is the same for all arms of the size, so that none has an advantage of it, and no test user has a say. Random is
drawn and trained in a replicate of its own, so that no cell of the comparison was chosen by its own luck.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dealrec.columns import LOSS
from dealrec.comparing.replicates import replicate_config
from dealrec.config import ArmConfig, Config
from dealrec.config.arms import RANDOM, arms
from dealrec.config.selection import Budget
from dealrec.engine.run_directory import read_table, write_text
from dealrec.stages.evaluate import VALID

FOLDER, RATES = "learning-rates", "learning-rates.json"


@dataclass(frozen=True)
class Tuned:
    """A budget, the loss of validation samples at each learning rate, and the rate at which it is lowest."""

    budget: Budget
    losses: Mapping[float, float]

    @property
    def rate(self) -> float:
        """Of equal losses the smaller one's."""
        return min(sorted(self.losses), key=lambda rate: self.losses[rate])

    @property
    def at_an_end(self) -> bool:
        """Whether a rate beyond those that were tried may be better."""
        return self.rate in (min(self.losses), max(self.losses))


def tuning_config(config: Config) -> Config:
    """The settings of the replicate in which the rates are tried: Random of each size at each rate, no other arm."""
    number = config.compare.replicates
    replicate = replicate_config(config, number)
    tried = {
        _name(budget, rate): ArmConfig(method=RANDOM, budget=budget, learning_rate=rate)
        for budget in dict.fromkeys(arm.budget for arm in arms(replicate).values())
        for rate in config.compare.learning_rates
    }
    select = {"method": RANDOM, "options": {}, "random_arms": 0, "selections": 1, "arms": tried}
    evaluate = {"loss_users": 1, "ranking_users": 0, "valid_samples": config.compare.valid_samples}
    return replicate.model_copy(
        update={
            "select": config.select.model_copy(update=select),
            "evaluate": config.evaluate.model_copy(update=evaluate),
        }
    )


def tuned(config: Config, run_dir: Path) -> list[Tuned]:
    """What the replicate in `run_dir` came to, a budget each; left in the folder of the comparison as JSON."""
    losses: dict[Budget, dict[float, float]] = {}
    for name, arm in arms(tuning_config(config)).items():
        if arm.learning_rate is not None:
            table = read_table(run_dir / FOLDER / "evaluate" / name / VALID)
            losses.setdefault(arm.budget, {})[arm.learning_rate] = float(table[LOSS].to_numpy().mean())
    rates = [Tuned(budget, of) for budget, of in losses.items()]
    write_text(run_dir / RATES, json.dumps(as_json(rates), indent=2) + "\n")
    return rates


def as_json(rates: list[Tuned]) -> list[dict[str, object]]:
    """A row a budget."""
    return [
        {
            "budget": each.budget,
            "learning_rate": each.rate,
            "at_an_end": each.at_an_end,
            "valid_loss": {f"{rate:g}": loss for rate, loss in each.losses.items()},
        }
        for each in rates
    ]


def with_rates(config: Config, rates: list[Tuned]) -> Config:
    """A replicate's settings with the rate of its budget for each arm."""
    rate_of = {each.budget: each.rate for each in rates}
    if not rate_of:
        return config
    own = config.select.budget
    further = {
        name: arm.model_copy(update={"learning_rate": rate_of[own if arm.budget is None else arm.budget]})
        for name, arm in config.select.arms.items()
    }
    return config.model_copy(
        update={"select": config.select.model_copy(update={"learning_rate": rate_of[own], "arms": further})}
    )


def sentences(rates: list[Tuned]) -> list[str]:
    """Which rate each budget got, in words, and where another might have been better."""
    if not rates:
        return []
    of_each = ", ".join(f"{each.rate:g} at {each.budget:,}" for each in rates)
    words = [f"Learning rates, by Random's loss on validation samples: {of_each}."]
    if ends := [f"{each.budget:,}" for each in rates if each.at_an_end]:
        words.append(
            f"At {', '.join(ends)} the lowest loss was at an end of compare.learning_rates: one beyond may be better."
        )
    return words


def _name(budget: Budget, rate: float) -> str:
    return f"{RANDOM}@{budget}-{rate:g}"
