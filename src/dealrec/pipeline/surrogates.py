"""The surrogate as the stages use it: from settings and tables to a model, its parameters and its batches."""

import fnmatch
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import polars as pl
import torch
from safetensors.torch import load_file
from torch import Tensor

from dealrec.config import CGConfig
from dealrec.errors import ConfigError, NonFinite
from dealrec.influence import CG, LiSSA
from dealrec.influence.solvers import Solver
from dealrec.pipeline.stage import Context
from dealrec.pipeline.tables import index_sequences, read_catalogue, read_samples
from dealrec.surrogate import Batches, SASRec, Units, draw_negatives, make_units, plan

Part = Literal["train", "valid"]


def units(context: Context, part: Part) -> Units:
    """Training units, or validation samples as units whose last item alone counts."""
    catalogue = read_catalogue(context.input("data/items.parquet"))
    samples = read_samples(context.input(f"data/samples-{part}.parquet"))
    whole = part == "train" and context.config.data.samples_per_user == 1
    return make_units(index_sequences(samples, catalogue), whole=whole)


def batches(context: Context, part: Part, *, batch_size: int) -> Batches:
    """All units with negatives that are drawn once, from the seed."""
    made = units(context, part)
    catalogue = read_catalogue(context.input("data/items.parquet"))
    config = context.config
    negatives = draw_negatives(
        made, n_items=len(catalogue), per_position=config.surrogate.negatives, seed=config.seed + (part == "valid")
    )
    return Batches(made, negatives, plan(made, batch_size=batch_size), device())


def new_model(context: Context) -> SASRec:
    """An untrained SASRec, its weights drawn from the seed."""
    catalogue = read_catalogue(context.input("data/items.parquet"))
    settings = context.config.surrogate
    with torch.random.fork_rng():
        torch.manual_seed(context.config.seed)
        model = SASRec(
            len(catalogue),
            dim=settings.dim,
            layers=settings.layers,
            heads=settings.heads,
            max_length=context.config.data.max_history,
            dropout=settings.dropout,
        )
    return model.to(device())


def trained(context: Context) -> SASRec:
    """The model that the surrogate stage kept."""
    model = new_model(context)
    model.load_state_dict(load_file(context.input("surrogate/model.safetensors")))
    return model.eval()


def chosen_parameters(model: SASRec, globs: list[str]) -> dict[str, Tensor]:
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


def solver(context: Context, *, after_step: Callable[[], None]) -> Solver:
    """The solver that the settings describe."""
    settings = context.config.influence.solver
    if isinstance(settings, CGConfig):
        return CG(**settings.model_dump(exclude={"kind"}))
    steps = batches(context, "train", batch_size=settings.batch_size).watched(after_step)
    return LiSSA(**settings.model_dump(exclude={"kind", "batch_size"}), seed=context.config.seed, step_batches=steps)


@contextmanager
def naming(ids: pl.Series, order: Batches | None) -> Iterator[None]:
    """Name the samples in a NonFinite error; None: its positions are not those of the training samples."""
    try:
        yield
    except NonFinite as error:
        if order is None:
            raise
        raise error.naming(ids[torch.cat(order.order).numpy()].to_list()) from None


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
