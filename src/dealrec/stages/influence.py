"""Influence: how much the risk would rise if a sample were removed, for all samples."""

from __future__ import annotations

import fnmatch
import math
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import polars as pl

from dealrec.columns import INFLUENCE, SAMPLE
from dealrec.config.arms import replicate_seed
from dealrec.config.solvers import ArnoldiConfig, CGConfig, EKFACConfig, IdentityConfig, LiSSAConfig
from dealrec.engine.run_directory import read_table, write_table
from dealrec.errors import ConfigError, NonFinite
from dealrec.stages import surrogate
from dealrec.stages.context import Context, Stage
from dealrec.stages.surrogate import batches, module_files, trained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from dealrec.influence.hvp import Params, PerSampleLoss
    from dealrec.influence.solvers import Solver
    from dealrec.surrogate import Batches, Surrogate


def run(context: Context) -> None:
    """Influence of every training sample on the risk."""
    from dealrec.influence import influence
    from dealrec.surrogate import per_sample_loss

    settings = context.config.influence
    model = trained(context)
    params = chosen_parameters(model, settings.parameters)
    train = batches(context, model, "train")
    target = batches(context, model, "valid") if settings.risk == "valid" else None
    ids = read_table(context.input("data/samples-train.parquet"))[SAMPLE]
    numbers = sum(value.numel() for value in params.values())
    loss = per_sample_loss(model, loss=context.config.surrogate.loss)
    with context.progress.bar("influence: batches") as advance, naming(ids, train if target is None else None):
        method = solver(context, model, after_step=advance)
        memory = solver_memory(loss, method, params, train)
        needs = ", ".join(f"{name.removesuffix('_mib')} {size:,} MiB" for name, size in memory.items())
        context.progress.say(f"influence: {numbers:,} parameters; memory: {needs}")
        target = target.watched(advance) if target else None
        influences = influence(loss, params, train.watched(advance), solver=method, target_batches=target)
    scores = train.restore_order(influences.scores.double().cpu())
    write_table(context.out / "scores.parquet", pl.DataFrame({SAMPLE: ids, INFLUENCE: scores.numpy()}), key=SAMPLE)
    solution = asdict(influences.solution)
    del solution["vector"], solution["seconds"]
    context.facts |= {"risk": settings.risk, "solver": settings.solver.kind, **solution}
    context.facts |= {"parameters": numbers, **memory}
    context.facts |= {"share_positive": float((scores > 0).double().mean())}


def chosen_parameters(model: Surrogate, globs: list[str]) -> dict[str, Tensor]:
    """The parameters whose names match. Raises ConfigError for a glob that matches none."""
    named = {name: value.detach() for name, value in model.named_parameters()}
    chosen: dict[str, Tensor] = {}
    for glob in model.parameter_globs(globs):
        matches = fnmatch.filter(named, glob)
        if not matches:
            raise ConfigError(
                f"influence.parameters: {glob!r} matches no parameter of the surrogate", f"It has: {', '.join(named)}."
            )
        chosen |= {name: named[name] for name in matches}
    return chosen


def solver(context: Context, model: Surrogate, *, after_step: Callable[[], None] = lambda: None) -> Solver:
    """The solver that the settings describe."""
    from dealrec.influence import CG, EKFAC, Arnoldi, Identity, LiSSA
    from dealrec.surrogate import pseudo_losses

    settings, seed = context.config.influence.solver, replicate_seed(context.config)
    options = settings.model_dump(exclude={"kind", "batch_size", "draws"})
    match settings:
        case CGConfig():
            return CG(**options)
        case ArnoldiConfig():
            return Arnoldi(**options, seed=seed)
        case LiSSAConfig():
            steps = batches(context, model, "train", batch_size=settings.batch_size).watched(after_step)
            return LiSSA(**options, seed=seed, step_batches=steps)
        case EKFACConfig():
            losses = pseudo_losses(model, loss=context.config.surrogate.loss, draws=settings.draws, seed=seed)
            return EKFAC(**options, module=model, pseudo_losses=losses)
        case IdentityConfig():
            return Identity()


def solver_memory(loss: PerSampleLoss, method: Solver, params: Params, train: Batches) -> dict[str, int]:
    """What solving holds, and the derivatives of a batch on top of it, at most; in MiB, known before the solving."""
    from dealrec.influence.memory import batch_memory

    batch = max(batch_memory(loss, params, batch) for batch in train.largest())
    sizes = {"solver_mib": method.memory(params), "batch_mib": batch}
    return {name: math.ceil(size / 2**20) for name, size in sizes.items()}


@contextmanager
def naming(ids: pl.Series, order: Batches | None) -> Iterator[None]:
    """Name the samples in a NonFinite error; None: its positions are not those of the training samples."""
    import torch

    try:
        yield
    except NonFinite as error:
        if order is None:
            raise
        raise error.naming(ids[torch.cat(order.order).numpy()].to_list()) from None


STAGE = Stage(
    "influence",
    2,
    run,
    ("data/samples-train.parquet", "data/items.parquet", "data/samples-valid.parquet", "surrogate/model.safetensors"),
    (*surrogate.SCORING, "influence"),
    module_files,
    surrogate.STAGE.machine,
)
