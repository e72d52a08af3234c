"""The settings of each replicate: those of the run, with an arm for every method, budget and size of Random's curve."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from dealrec.config import ArmConfig, Config
from dealrec.config.arms import RANDOM, SELECTED
from dealrec.config.selection import Budget, is_arm_name


def replicate_config(config: Config, number: int) -> Config:
    """The settings of replicate `number`: `selected` is the method of the run, at its budget."""
    sizes = {"loss_users": config.evaluate.loss_users, "valid_samples": config.compare.valid_samples}
    return config.model_copy(
        update={
            "replicate": number,
            "warm_replicate": number if config.compare.warm_starts == "own" else 0,
            "select": config.select.model_copy(
                update={"selections": 1, "random_arms": 0, "arms": {**dict(_arms(config)), **config.select.arms}}
            ),
            "evaluate": config.evaluate.model_copy(update=sizes),
        }
    )


def labels(config: Config) -> dict[str, str]:
    """What each arm of a replicate is called in the comparison: its method, whatever its budget."""
    own = {SELECTED: label(config.select.method)}
    return own | {name: label(arm.method) for name, arm in replicate_config(config, 0).select.arms.items()}


def label(method: str) -> str:
    """The name of a method; of a file its own without the folder."""
    return Path(method).stem if method.endswith(".py") else method


def _arms(config: Config) -> Iterator[tuple[str, ArmConfig]]:
    for times in config.compare.random_sizes:
        size = _multiple(config.select.budget, times)
        if size is not None:
            yield f"{RANDOM}-x{times:g}", ArmConfig(method=RANDOM, budget=size)
    own = ArmConfig(method=config.select.method, options=config.select.options)
    methods = [ArmConfig(method=arm) if isinstance(arm, str) else arm for arm in config.compare.methods]
    beside = [arm for arm in methods if arm != own]
    for arm in beside:
        yield _name(arm, None), arm
    for budget in config.compare.budgets:
        yield _name(ArmConfig(method=RANDOM), budget), ArmConfig(method=RANDOM, budget=budget)
        for arm in (own, *beside):
            yield _name(arm, budget), arm.model_copy(update={"budget": budget})


def _name(arm: ArmConfig, budget: Budget | None) -> str:
    """Of the arm's folder: its method, options and, where it is not that of the run, budget."""
    options = "".join(f"-{key}-{value}" for key, value in sorted(arm.options.items()))
    of = arm.budget if budget is None else budget
    name = f"{label(arm.method)}{options}" + ("" if of is None else f"@{of}")
    if is_arm_name(name):
        return name
    digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:8]  # what is left out may tell two arms apart
    plain = re.sub(r"[^\w .,@=-]", "", name)[:80]
    return f"arm {plain}-{digest}"


def _multiple(budget: Budget, times: float) -> Budget | None:
    """So many times the budget; None where that is more than all samples."""
    if isinstance(budget, int):
        return max(1, round(budget * times))
    return budget * times if budget * times <= 1 else None
