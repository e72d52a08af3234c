"""The stages in their order, each in a file of its own that says what it reads and what can change its outcome."""

from dataclasses import replace
from pathlib import Path

from dealrec.config import Config
from dealrec.engine.manifest import Manifest
from dealrec.engine.runner import State, states
from dealrec.errors import ConfigError
from dealrec.stages import (
    compare,
    data,
    effort,
    evaluate,
    export,
    fidelity,
    finetune,
    influence,
    report,
    retrain,
    select,
    surrogate,
    warmstart,
)
from dealrec.stages.context import Stage
from dealrec.stages.feasibility import check_data

RESULTS: tuple[Stage, ...] = (
    data.STAGE,
    surrogate.STAGE,
    influence.STAGE,
    warmstart.STAGE,
    effort.STAGE,
    select.STAGE,
    export.STAGE,
    finetune.STAGE,
    evaluate.STAGE,
    compare.STAGE,
)
STAGES: tuple[Stage, ...] = (*RESULTS, report.stage(RESULTS))

# Of `dealrec fidelity`. It needs no LLM, so that there is nothing to check after the data.
FIDELITY_STAGES: tuple[Stage, ...] = (
    *(replace(stage, after=lambda *_: None) for stage in (data.STAGE, surrogate.STAGE)),
    retrain.STAGE,
    fidelity.STAGE,
)


def states_with_check(config: Config, run_dir: Path) -> list[tuple[Stage, State, Manifest | None]]:
    """The states of the pipeline's stages, then of the check's own where it was begun; of a check alone no others."""
    pipeline = list(states(config, run_dir, STAGES, anywhere=True))
    shared = {stage.name for stage in STAGES} & {stage.name for stage in FIDELITY_STAGES}
    # A run in the same folder records no form of the check: it is current if it is so in one of the two.
    forms = (fidelity.full(config), fidelity.quick(config))
    own = [list(states(form, run_dir, FIDELITY_STAGES, anywhere=True))[len(shared) :] for form in forms]
    check = max(own, key=lambda rows: sum(state == State.COMPLETE for _, state, _ in rows))
    if all(state == State.MISSING for _, state, _ in check):
        return pipeline
    if all(state == State.MISSING for stage, state, _ in pipeline if stage.name not in shared):
        return pipeline[: len(shared)] + check
    return pipeline + check


def stages_until(name: str) -> tuple[Stage, ...]:
    """The stages from the first to the one of that name. Raises ConfigError where there is none."""
    names = [stage.name for stage in STAGES]
    if name not in names:
        raise ConfigError(f"There is no stage {name!r}", f"The stages are: {', '.join(names)}.")
    stages = STAGES[: names.index(name) + 1]
    if warmstart.STAGE in stages:
        return stages
    return replace(data.STAGE, after=check_data), *stages[1:]  # no recommender is read, so none need be there
