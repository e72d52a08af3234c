"""The surrogate as the stages use it: from settings and tables to a model, its parameters and its batches."""

import fnmatch
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors.torch import load_model
from torch import Tensor

from dealrec.config import Config, SurrogateConfig
from dealrec.config_solvers import ArnoldiConfig, CGConfig, EKFACConfig, IdentityConfig, LiSSAConfig
from dealrec.devices import compute_device
from dealrec.errors import ConfigError, ModelError, NonFinite
from dealrec.influence import CG, EKFAC, Arnoldi, Identity, LiSSA, directional_scores
from dealrec.influence.hvp import Params, PerSampleLoss, hessian_vector
from dealrec.influence.memory import batch_memory
from dealrec.influence.solvers import Solver
from dealrec.pipeline.stage import Context
from dealrec.pipeline.tables import PARTS, Part, index_sequences, read_catalogue, read_samples
from dealrec.surrogate import (
    MF,
    Batches,
    BERT4Rec,
    GRU4Rec,
    SASRec,
    Surrogate,
    Units,
    draw_cloze,
    draw_negatives,
    make_units,
    per_sample_loss,
    plan,
    plan_by_positions,
    pseudo_losses,
    train,
)

KINDS: dict[str, type[Surrogate]] = {"sasrec": SASRec, "gru4rec": GRU4Rec, "bert4rec": BERT4Rec, "mf": MF}


def units(context: Context, part: Part) -> Units:
    """Training units, or validation samples as units whose last item alone counts."""
    catalogue = read_catalogue(context.input("data/items.parquet"))
    samples = read_samples(context.input(f"data/samples-{part}.parquet"))
    whole = part == "train" and context.config.data.samples_per_user == 1
    return make_units(index_sequences(samples, catalogue), whole=whole)


def batches(context: Context, model: Surrogate, part: Part, *, batch_size: int | None = None) -> Batches:
    """All units with negatives, and hidden items where the model fills them in, drawn once from the seed.

    batch_size: units per batch, for steps over random batches; None: influence.batch_positions, for whole passes.
    """
    made = units(context, part)
    settings, seed = context.config.surrogate, context.config.seed + PARTS.index(part)
    negatives = draw_negatives(made, n_items=model.n_items, per_position=settings.negatives, seed=seed)
    cloze = None
    if model.hidden_item is not None:
        cloze = draw_cloze(made, index=model.hidden_item, share=settings.hidden_share, seed=seed)
    if batch_size is None:
        order = plan_by_positions(made, positions=context.config.influence.batch_positions)
    else:
        order = plan(made, batch_size=batch_size)
    return Batches(made, negatives, order, cloze, compute_device())


def new_model(context: Context) -> Surrogate:
    """An untrained surrogate, its weights drawn from the seed."""
    catalogue = read_catalogue(context.input("data/items.parquet"))
    with torch.random.fork_rng():
        torch.manual_seed(context.config.seed)
        model = build(context.config.surrogate, len(catalogue), max_history=context.config.data.max_history)
    return model.to(compute_device())


def build(settings: SurrogateConfig, n_items: int, *, max_history: int) -> Surrogate:
    """A surrogate of the kind that the settings name, its weights from torch's global generator."""
    if settings.module is not None:
        return _custom(settings.module, n_items, max_length=max_history + 1)
    kind = KINDS[settings.kind]
    shape = inspect.signature(kind).parameters
    known = {name: value for name, value in settings.model_dump().items() if name in shape}
    # A cloze has the target among its positions.
    return kind(n_items, **known, max_length=max_history + kind.cloze)


def _custom(path: Path, n_items: int, *, max_length: int) -> Surrogate:
    name = f"dealrec_custom_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"surrogate.module {path} is no Python file", "Give the path of a .py file.")
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    try:
        spec.loader.exec_module(module)
        model = module.surrogate(n_items, max_length)
    except Exception as error:  # whatever the user's code raises
        raise ModelError(
            f"{path}: surrogate(n_items, max_length) failed with {type(error).__name__}: {error}",
            "Mend the file; examples/gpt2_surrogate.py shows one that works.",
        ) from error
    if not isinstance(model, Surrogate):
        raise ModelError(
            f"surrogate() of {path} returned a {type(model).__name__}", "Return a dealrec.surrogate.Surrogate."
        )
    _require_derivatives(model, path)
    return model


def _require_derivatives(model: Surrogate, path: Path) -> None:
    """Try on two short sequences what influence needs, so that a fused kernel is found before the training."""
    made = make_units([[1, 1, 1], [1, 1]], whole=True)
    negatives = draw_negatives(made, n_items=model.n_items, per_position=1, seed=0)
    cloze = draw_cloze(made, index=model.n_items + 1, share=0.0, seed=0) if model.cloze else None
    loss, order = per_sample_loss(model), Batches(made, negatives, plan(made, batch_size=2), cloze)
    params = {name: value.detach() for name, value in model.named_parameters()}
    try:
        directional_scores(loss, params, order, params)
        hessian_vector(loss, params, order)(params)
    except (RuntimeError, NotImplementedError) as error:
        raise ModelError(
            f"The surrogate of {path} lacks a derivative: {str(error).splitlines()[0]}",
            'Compose attention of plain operations (in transformers: attn_implementation="eager").',
        ) from error


def training_settings(config: Config) -> dict[str, Any]:
    """What `dealrec.surrogate.train` takes of the settings."""
    taken = inspect.signature(train).parameters
    return {name: value for name, value in config.surrogate.model_dump().items() if name in taken}


def trained(context: Context) -> Surrogate:
    """The model that the surrogate stage kept."""
    model = new_model(context)
    load_model(model, context.input("surrogate/model.safetensors"))
    return model.eval()


def chosen_parameters(model: Surrogate, globs: list[str]) -> dict[str, Tensor]:
    """The parameters whose names match. Raises ConfigError for a glob that matches none."""
    named = {name: value.detach() for name, value in model.named_parameters()}
    chosen: dict[str, Tensor] = {}
    for glob in model.parameter_globs(globs):
        matched = fnmatch.filter(named, glob)
        if not matched:
            raise ConfigError(
                f"influence.parameters: {glob!r} matches no parameter of the surrogate", f"It has: {', '.join(named)}."
            )
        chosen |= {name: named[name] for name in matched}
    return chosen


def solver(context: Context, model: Surrogate, *, after_step: Callable[[], None] = lambda: None) -> Solver:
    """The solver that the settings describe."""
    settings, seed = context.config.influence.solver, context.config.seed
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


def influence_memory(loss: PerSampleLoss, method: Solver, params: Params, train: Batches) -> dict[str, int]:
    """What solving holds, and the derivatives of the largest batch on top of it; in MiB, known before the solving."""
    held = {"solver_mib": method.memory(params), "batch_mib": batch_memory(loss, params, train.largest())}
    return {name: math.ceil(size / 2**20) for name, size in held.items()}


@contextmanager
def naming(ids: pl.Series, order: Batches | None) -> Iterator[None]:
    """Name the samples in a NonFinite error; None: its positions are not those of the training samples."""
    try:
        yield
    except NonFinite as error:
        if order is None:
            raise
        raise error.naming(ids[torch.cat(order.order).numpy()].to_list()) from None
