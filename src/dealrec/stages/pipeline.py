"""The stages in their order, each in a file of its own that says what it reads and what can change its outcome."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from dealrec.config import Config
from dealrec.engine.manifest import Manifest
from dealrec.engine.runner import State, states
from dealrec.errors import ConfigError
from dealrec.stages import (
    alignment,
    compare,
    data,
    effort,
    evaluate,
    export,
    fidelity,
    finetune,
    influence,
    length,
    loss,
    loss_drop,
    pool,
    report,
    retrain,
    select,
    surrogate,
    surrogate_error,
    surrogate_loss,
    surrogate_loss_drop,
    surrogate_state,
    target_cluster,
    text_embedding,
    title_embedding,
    warmstart,
)
from dealrec.stages.context import Stage
from dealrec.stages.feasibility import check_data
from dealrec.stages.recommenders import kinds
from dealrec.stages.samples import ROWS_FILE

# Of `dealrec fidelity`. It needs no LLM, so that there is nothing to check after the data.
FIDELITY_STAGES: tuple[Stage, ...] = (
    *(replace(stage, after=lambda *_: None) for stage in (data.STAGE, surrogate.STAGE)),
    retrain.STAGE,
    fidelity.STAGE,
)


_READING_ROWS = (
    *(warmstart.STAGE.name, f"signal_{warmstart.STAGE.name}", loss.STAGE.name, effort.STAGE.name, loss_drop.STAGE.name),
    *(length.STAGE.name, alignment.STAGE.name, export.STAGE.name, finetune.STAGE.name, evaluate.STAGE.name),
)


def results(config: Config, *, beside: Collection[str] = ()) -> tuple[Stage, ...]:
    """The stages that compute something, in their order: of the signals those that a method of an arm reads.

    beside: names of stages that are wanted though no method reads what they compute.
    """
    selection = select.stage(config)
    signals = (
        surrogate.STAGE,
        influence.STAGE,
        surrogate_loss.STAGE,
        surrogate_loss_drop.STAGE,
        surrogate_error.STAGE,
        surrogate_state.STAGE,
        title_embedding.STAGE,
        text_embedding.STAGE,
        target_cluster.STAGE,
        warmstart.STAGE,
        length.STAGE,
        pool.stage(config),
        *_recommender_signals(config),
    )
    read = {*selection.inputs, *(f"{name}/" for name in beside), "warmstart/"}
    wanted: list[Stage] = []
    for stage in reversed(signals):
        if any(name.startswith(f"{stage.name}/") for name in read):
            wanted.insert(0, stage)
            read |= {f"{name}/" for name in stage.inputs}
    chosen = (data.STAGE, *wanted, selection, export.STAGE)
    if config.data.final or (config.data.format == "rows" and config.data.test_rows is None):
        return tuple(_with_rows(config, chosen))  # there is nothing to test on
    return tuple(_with_rows(config, (*chosen, finetune.STAGE, evaluate.STAGE, compare.STAGE)))


def _with_rows(config: Config, wanted: Iterable[Stage]) -> Iterator[Stage]:
    """The stages, which read training rows of the user's own where the recommender that they work with reads text."""
    for stage in wanted:
        reads = stage.name in _READING_ROWS and kinds.kind(stage.view(config)).TEXT
        rows = (ROWS_FILE,) if config.data.format == "rows" and reads else ()
        yield replace(stage, inputs=(*stage.inputs, *rows)) if rows else stage


def _recommender_signals(config: Config) -> tuple[Stage, ...]:
    """Of another recommender than that of the run where the settings name one, after its own warm start."""
    own = (loss.STAGE, effort.STAGE, loss_drop.STAGE, alignment.STAGE)
    if config.scorer() is config:
        return own
    start = replace(warmstart.STAGE, name=f"signal_{warmstart.STAGE.name}", view=Config.scorer)
    inputs = {warmstart.STAGE.name: start.name}
    return start, *(
        replace(stage, inputs=tuple(inputs.get(name, name) for name in stage.inputs), view=Config.scorer)
        for stage in own
    )


def stages(config: Config, *, beside: Collection[str] = ()) -> tuple[Stage, ...]:
    """`results`, and the page on them."""
    computed = results(config, beside=beside)
    return *computed, report.stage(computed)


def states_with_check(config: Config, run_dir: Path) -> list[tuple[Stage, State, Manifest | None]]:
    """The states of the pipeline's stages, then of the check's own where it was begun; of a check alone no others."""
    pipeline = list(states(config, run_dir, stages(config), anywhere=True))
    shared = {stage.name for stage, _, _ in pipeline} & {stage.name for stage in FIDELITY_STAGES}
    # A run in the same folder records no form of the check: it is current if it is so in one of the two.
    forms = (fidelity.full(config), fidelity.quick(config))
    own = [list(states(form, run_dir, FIDELITY_STAGES, anywhere=True))[2:] for form in forms]
    check = max(own, key=lambda rows: sum(state == State.COMPLETE for _, state, _ in rows))
    if all(state == State.MISSING for _, state, _ in check):
        return pipeline
    if all(state == State.MISSING for stage, state, _ in pipeline if stage.name not in shared):
        return pipeline[: len(shared)] + check
    return pipeline + check


def stages_until(config: Config, name: str) -> tuple[Stage, ...]:
    """The stages from the first to the one of that name. Raises ConfigError where there is none."""
    wanted = stages(config, beside=[name])
    names = [stage.name for stage in wanted]
    if name not in names:
        raise ConfigError(f"There is no stage {name!r}", f"The stages are: {', '.join(names)}.")
    wanted = wanted[: names.index(name) + 1]
    if warmstart.STAGE.name in [stage.name for stage in wanted]:
        return wanted
    return replace(data.STAGE, after=check_data), *wanted[1:]  # no recommender is read, so none need be there
