"""The stages in their order, each in a file of its own that says what it reads and what can change its outcome."""

from dataclasses import replace

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


def stages_until(name: str) -> tuple[Stage, ...]:
    """The stages from the first to the one of that name. Raises ConfigError where there is none."""
    names = [stage.name for stage in STAGES]
    if name not in names:
        raise ConfigError(f"There is no stage {name!r}", f"The stages are: {', '.join(names)}.")
    return STAGES[: names.index(name) + 1]
