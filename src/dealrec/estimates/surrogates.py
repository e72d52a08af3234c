"""The cost of training the surrogate and of influence, from a few steps and a few batches."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from safetensors.torch import save_model
from torch import Tensor

from dealrec.config import Config
from dealrec.config.solvers import ArnoldiConfig, CGConfig, EKFACConfig, IdentityConfig, LiSSAConfig, SolverConfig
from dealrec.estimates.bench import (
    LEAST,
    Bench,
    Watched,
    seconds_each,
    seconds_of,
    settled_seconds_of,
    watched,
)
from dealrec.estimates.results import Expected
from dealrec.influence.hvp import (
    Params,
    PerSampleLoss,
    Vector,
    batch_hessian_vector,
    combine,
    directional_scores,
    dot,
    hessian_vector,
    mean_gradient,
)
from dealrec.influence.solvers import SPECTRUM_STEPS
from dealrec.stages.surrogates import batches, chosen_parameters, new_model, solver, trained, training_settings, units
from dealrec.surrogate import Batches, Surrogate, Units, per_sample_loss, target_ranks, train

STEPS, RANKED, BATCHES = 8, 512, 3  # optimiser steps, ranked units and batches that are measured
# Conjugate gradients took 8 to 26 iterations on MovieLens, Games and made-up data, with the default damping and tol.
ITERATIONS = 15


def surrogate(bench: Bench) -> Expected:
    """From epochs over as many units as `STEPS` steps take, and the ranking of `RANKED` validation units."""
    context = bench.context("surrogate")
    settings = training_settings(bench.config)
    start = time.perf_counter()
    everyone, valid, model = units(context, "train"), units(context, "valid"), new_model(context)
    preparing = time.perf_counter() - start
    save_model(model, str(bench.stand_in("surrogate") / "model.safetensors"))  # influence is measured on it
    some = _some(everyone, STEPS * settings["batch_size"])
    epoch = _epoch_seconds(model, some, settings, seed=bench.config.seed) * len(everyone) / len(some)
    ranked = _some(valid, RANKED)
    if len(valid):
        epoch += settled_seconds_of(lambda: target_ranks(model, ranked)) * len(valid) / len(ranked)
    epochs = settings["max_epochs"]
    total = preparing + epochs * epoch
    figures = {"units": len(everyone), "steps_per_epoch": math.ceil(len(everyone) / settings["batch_size"])}
    if not len(valid):
        return Expected(figures | {"epochs": epochs}, total)
    note = f"all {epochs:,} epochs are counted; early stopping (surrogate.patience) may end it sooner"
    return Expected(figures | {"epochs_at_most": epochs}, total, at_most=total, notes=(note,))


def _some(everyone: Units, most: int) -> Units:
    """At most so many units, spread over all: their order is the users', which says nothing of their length."""
    return everyone.take(torch.linspace(0, max(0, len(everyone) - 1), min(most, len(everyone))).long())


def _epoch_seconds(model: Surrogate, some: Units, settings: dict[str, object], *, seed: int) -> float:
    """Of one epoch over the units, without validation; the first one is not counted."""
    seen: Watched[int] = []
    chosen: dict[str, object] = {**settings, "max_epochs": 10_000, "seed": seed}
    chosen["watch"] = lambda epochs: watched(epochs, seen, least=LEAST)
    train(model, some, None, **chosen)  # type: ignore[arg-type]  # a mapping of settings
    return seconds_each(seen)


@dataclass(frozen=True)
class Steps:
    """What a solver does: passes over the training data, each with so many pairs of a product and a sum of vectors."""

    passes: int
    pairs: int

    def __add__(self, other: "Steps") -> "Steps":
        return Steps(self.passes + other.passes, self.pairs + other.pairs)


def solver_steps(settings: SolverConfig, numbers: int) -> tuple[Steps, Steps]:
    """Hessian-vector passes as expected and at most, over so many parameters; without the steps of LiSSA over batches.

    >>> solver_steps(CGConfig(max_iter=50), 1000)
    (Steps(passes=31, pairs=271), Steps(passes=66, pairs=411))
    """
    residual = Steps(1, 1)
    match settings:
        case CGConfig():
            fixed = residual + (_lanczos(SPECTRUM_STEPS, numbers) if settings.damping is None else Steps(0, 0))
            expected, most = min(ITERATIONS, settings.max_iter), settings.max_iter
            return fixed + Steps(expected, 4 * expected), fixed + Steps(most, 4 * most)
        case ArnoldiConfig():
            needed = _lanczos(2 * settings.rank, numbers) + residual
        case LiSSAConfig():
            known = settings.damping is not None and settings.scale is not None and settings.allow_unconverged
            needed = residual if known else _lanczos(SPECTRUM_STEPS, numbers) + residual
        case EKFACConfig() | IdentityConfig():
            needed = residual
    return needed, needed


def _lanczos(steps: int, numbers: int) -> Steps:
    """Each new direction is made orthogonal to all before it, twice."""
    steps = min(steps, numbers)
    return Steps(steps, steps * (steps - 1))


def influence(bench: Bench) -> Expected:
    """From the derivatives of a few batches, spread over all from the longest units to the shortest."""
    context, config = bench.context("influence"), bench.config
    start = time.perf_counter()
    model = trained(context)
    params = chosen_parameters(model, config.influence.parameters)
    every = batches(context, model, "train")
    target = batches(context, model, "valid") if config.influence.risk == "valid" else every
    preparing = time.perf_counter() - start
    loss = per_sample_loss(model, loss=config.surrogate.loss)
    some, whole = _piece(every)
    targeted, all_targets = _piece(target)
    vector = {name: value.clone() for name, value in params.items()}
    product = whole * settled_seconds_of(lambda: hessian_vector(loss, params, some)(vector))
    gradient = all_targets * settled_seconds_of(lambda: mean_gradient(loss, params, targeted))
    scoring = whole * settled_seconds_of(lambda: directional_scores(loss, params, some, vector))
    pair = settled_seconds_of(lambda: combine(1.0, vector, dot(vector, vector), vector))
    numbers = sum(value.numel() for value in params.values())
    method = solver(context, model)
    fixed = preparing + gradient + scoring + _besides(bench, model, loss, params, some, whole)
    steps, most = solver_steps(config.influence.solver, numbers)
    seconds, at_most = (fixed + found.passes * product + found.pairs * pair for found in (steps, most))
    figures = {"parameters": numbers, "batches": len(every), **_figures(config.influence.solver, steps, most)}
    known = steps == most
    return Expected(figures, seconds, None if known else at_most, method.memory(params), _assumed(config))


def _piece(every: Batches) -> tuple[Batches, float]:
    """A few of the batches, and how many times as many positions all of them have."""
    places = torch.linspace(0, len(every.order) - 1, min(BATCHES, len(every.order))).long().unique().tolist()
    some = replace(every, order=[every.order[place] for place in places])
    return some, _positions(every.units, every.order) / _positions(some.units, some.order)


def _positions(made: Units, order: Sequence[Tensor]) -> int:
    """Positions of the batches, padding included."""
    return sum(len(index) * int(made.lengths[index].max()) for index in order)


def _besides(bench: Bench, model: Surrogate, loss: PerSampleLoss, params: Params, some: Batches, whole: float) -> float:
    """Seconds of what a solver does besides whole Hessian-vector passes."""
    settings, context = bench.config.influence.solver, bench.context("influence")
    if isinstance(settings, LiSSAConfig):
        drawn = batches(context, model, "train", batch_size=settings.batch_size)
        middle: Vector = {name: value.clone() for name, value in params.items()}
        step = settled_seconds_of(lambda: batch_hessian_vector(loss, params, drawn[len(drawn) // 2], middle))
        return settings.depth * settings.repeats * step
    if isinstance(settings, EKFACConfig):
        method = solver(context, model)
        one = settled_seconds_of(lambda: method.prepare(loss, params, replace(some, order=some.order[-1:])))
        if len(some.order) == 1:
            return one
        more = seconds_of(lambda: method.prepare(loss, params, some))
        share = _positions(some.units, some.order[-1:]) / _positions(some.units, some.order)
        passes = max(0.0, more - one) / (1 - share)  # over `some`; the rest are the eigenvectors, which are found once
        return passes * whole + max(0.0, one - passes * share)
    return 0.0


def _figures(settings: SolverConfig, steps: Steps, most: Steps) -> dict[str, int]:
    if isinstance(settings, CGConfig):
        return {"passes_assumed": steps.passes, "passes_at_most": most.passes}
    if isinstance(settings, LiSSAConfig):
        return {"passes": steps.passes, "steps": settings.depth * settings.repeats}
    if isinstance(settings, EKFACConfig):
        return {"passes": steps.passes + 2 * settings.draws}
    return {"passes": steps.passes}


def _assumed(config: Config) -> tuple[str, ...]:
    settings = config.influence.solver
    if not isinstance(settings, CGConfig):
        return ()
    assumed = min(ITERATIONS, settings.max_iter)
    return (
        f"{assumed} iterations of CG are assumed, as usual for its default damping and tol; smaller ones take more, up"
        f" to the {settings.max_iter:,} of influence.solver.max_iter",
    )
