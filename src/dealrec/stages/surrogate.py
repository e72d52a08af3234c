"""Surrogate: the small recommender on which influence is computed, trained on all units."""

from __future__ import annotations

import inspect
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import polars as pl

from dealrec.columns import EPOCH, HISTORY, ITEM, PARTS, SAMPLE, TARGET, TRAIN_LOSS, VALID_MRR, VALID_NDCG, Part
from dealrec.config import Config, SurrogateConfig
from dealrec.config.arms import SEEDS, replicate_seed
from dealrec.data.catalogue import sequences
from dealrec.data.row_samples import isolated
from dealrec.devices import compute_device, fingerprint_parts
from dealrec.engine.python_files import imported_files
from dealrec.engine.run_directory import read_table, write_table
from dealrec.errors import ConfigError
from dealrec.stages.context import Context, Stage

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dealrec.surrogate import Batches, Surrogate, Units

_EPOCHS = {EPOCH: pl.Int64, TRAIN_LOSS: pl.Float64, VALID_NDCG: pl.Float64, VALID_MRR: pl.Float64}


def run(context: Context) -> None:
    """The surrogate recommender, trained on the units and kept at its best epoch."""
    from safetensors.torch import save_model

    from dealrec.surrogate import Epoch, train

    train_units, valid = _training_units(context), units(context, "valid")
    if not len(valid):
        context.warn("there are no validation samples: all surrogate.max_epochs are trained and the last is kept")
    model = new_model(context)
    history = train(
        model,
        train_units,
        valid if len(valid) else None,
        **training_settings(context.config),
        seed=replicate_seed(context.config),
        watch=lambda epochs: context.track(epochs, "epochs (fewer if it stops early)"),
    )
    save_model(model, str(context.out / "model.safetensors"))
    table = pl.DataFrame([asdict(epoch) for epoch in history], schema=_EPOCHS)
    write_table(context.out / "training.parquet", table, key=EPOCH)
    best = max(history, key=Epoch.quality)
    if best.valid_ndcg == 0:
        context.warn(
            "no validation target is among the surrogate's first ten items in any epoch: it has learnt little,"
            " and influence says as much"
        )
    context.facts |= {"units": len(train_units), "epochs": len(history), "best_epoch": best.epoch}
    context.facts["valid_ndcg@10"] = best.valid_ndcg


def _training_units(context: Context) -> Units:
    """All training units; in a final selection without the newest targets, which signals aim at, and of training rows
    of the user's own without those that share no item with any other.

    A user's sequence ends before such a target; where a sample is a unit of its own, it is none.
    """
    from dealrec.surrogate import make_units

    config = context.config.data
    if config.format != "rows" and not config.final:
        return units(context, "train")
    samples = read_table(context.input("data/samples-train.parquet"))
    lists = sequences(samples, read_table(context.input("data/items.parquet")))
    if config.format == "rows":
        return make_units(lists.filter(~isolated(samples[HISTORY], samples[TARGET])), whole=False)
    newest = pl.col(SAMPLE).is_in(read_table(context.input("data/samples-valid.parquet"))[SAMPLE].implode())
    whole, length = config.samples_per_user == 1, pl.col(ITEM).list.len()
    left = length - newest.cast(pl.UInt32) if whole else pl.when(newest).then(0).otherwise(length)
    older = samples.select(SAMPLE, lists.alias(ITEM)).select(pl.col(ITEM).list.head(left))[ITEM]
    older = older.filter(older.list.len() > 1)
    if not len(older):
        raise ConfigError(
            "No training sample is older than those that a final selection aims at", "Raise data.samples_per_user."
        )
    return make_units(older, whole=whole)


def units(context: Context, part: Part, *, whole: bool | None = None) -> Units:
    """Training units, or validation samples as units whose last item alone counts.

    whole: whether all items of a training unit count; None: as in training.
    """
    from dealrec.surrogate import make_units

    samples = read_table(context.input(f"data/samples-{part}.parquet"))
    lists = sequences(samples, read_table(context.input("data/items.parquet")))
    trained_whole = part == "train" and context.config.data.whole_sequences
    return make_units(lists, whole=trained_whole if whole is None else whole)


def batches(
    context: Context, model: Surrogate, part: Part, *, batch_size: int | None = None, whole: bool | None = None
) -> Batches:
    """All units with negatives, and hidden items where the model fills them in, drawn once from the seed.

    batch_size: units per batch, for steps over random batches; None: influence.batch_positions, for whole passes.
    whole: as for `units`.
    """
    from dealrec.surrogate import Batches, Negatives, draw_cloze, plan, plan_by_positions

    part_units = units(context, part, whole=whole)
    settings, seed = context.config.surrogate, replicate_seed(context.config) + PARTS.index(part)
    count = 0 if settings.loss == "softmax" else settings.negatives
    negatives = Negatives(model.n_items, count, seed, settings.shared_negatives)
    cloze = None
    if model.hidden_item is not None:
        cloze = draw_cloze(part_units, index=model.hidden_item, share=settings.hidden_share, seed=seed)
    if batch_size is None:
        order = plan_by_positions(part_units, positions=context.config.influence.batch_positions)
    else:
        order = plan(part_units, batch_size=batch_size)
    return Batches(part_units, negatives, order, cloze, compute_device())


def new_model(context: Context) -> Surrogate:
    """An untrained surrogate, its weights drawn from the seed."""
    import torch

    items = read_table(context.input("data/items.parquet"))
    with torch.random.fork_rng():
        torch.manual_seed(replicate_seed(context.config))
        model = build(context.config.surrogate, len(items), max_history=context.config.data.max_history)
    device = compute_device()
    context.facts["device"] = str(device)
    return model.to(device)


def build(settings: SurrogateConfig, n_items: int, *, max_history: int) -> Surrogate:
    """A surrogate of the kind that the settings name, its weights from torch's global generator."""
    from dealrec.surrogate import KINDS
    from dealrec.surrogate.custom import load_custom

    if settings.module is not None:
        return load_custom(settings.module, n_items, max_length=max_history + 1)
    kind = KINDS[settings.kind]
    shape = inspect.signature(kind).parameters
    options = {name: value for name, value in settings.model_dump().items() if name in shape}
    # A cloze has the target among its positions.
    return kind(n_items, **options, max_length=max_history + kind.cloze)


def training_settings(config: Config) -> dict[str, Any]:
    """What `dealrec.surrogate.train` takes of the settings."""
    from dealrec.surrogate import train

    parameters = inspect.signature(train).parameters
    return {name: value for name, value in config.surrogate.model_dump().items() if name in parameters}


def trained(context: Context) -> Surrogate:
    """The model that the surrogate stage kept."""
    from safetensors.torch import load_model

    model = new_model(context)
    load_model(model, context.input("surrogate/model.safetensors"))
    return model.eval()


def module_files(config: Config) -> Iterable[Path]:
    """The user's own code of a custom surrogate: what it holds can change the outcome."""
    return imported_files(config.surrogate.module) if config.surrogate.module else ()


_MODEL = ("kind", "dim", "layers", "heads", "loss", "negatives", "shared_negatives", "hidden_share")
# The settings that decide how a trained surrogate computes.
SCORING = (
    *SEEDS,
    "data.format",
    "data.max_history",
    "data.samples_per_user",
    *(f"surrogate.{name}" for name in _MODEL),
)

STAGE = Stage(
    "surrogate",
    4,
    run,
    ("data/samples-train.parquet", "data/items.parquet", "data/samples-valid.parquet"),
    (
        *(*SEEDS, "data.format", "data.max_history", "data.samples_per_user", "data.final"),
        *(f"surrogate.{name}" for name in SurrogateConfig.model_fields if name != "module"),
    ),
    module_files,
    lambda _config: fingerprint_parts(),
)
