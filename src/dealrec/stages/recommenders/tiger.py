"""TIGER as the stages make, keep and use it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from dealrec.config import Config
from dealrec.config.arms import warm_seed
from dealrec.data.catalogue import Catalogue, pairs
from dealrec.devices import fingerprint_parts
from dealrec.engine.run_directory import read_table
from dealrec.stages import text_encoder
from dealrec.stages.context import Context
from dealrec.stages.recommenders.semantic_ids import catalogue_rows, fitted_ids
from dealrec.stages.recommenders.training import warm_folder

if TYPE_CHECKING:
    from dealrec.recommenders.tiger import TIGER
    from dealrec.sequences import Sample

TRAININGS: tuple[str, ...] = ("finetune",)
TEXT = False
ENCODER = "tiger.text_encoder"
WARM, CHECKPOINT = "model", "checkpoint.safetensors"


def check(config: Config, run_dir: Path) -> list[str]:  # noqa: ARG001 the other recommenders look at the data
    """Raise ModelError for a text encoder that is not whole."""
    text_encoder.check(config.tiger.text_encoder, ENCODER)
    return []


def files(config: Config) -> Iterator[Path | str]:
    """The files of the text encoder's directory, or its name on the hub."""
    return text_encoder.files(config.tiger.text_encoder, ENCODER)


def machine(config: Config) -> list[str]:  # noqa: ARG001
    """The kind of device."""
    return fingerprint_parts()


def warm_start(context: Context) -> None:
    """Fit the semantic ids, and train the model on the earlier part of the training period."""
    from dataclasses import asdict

    from dealrec.recommenders.tiger import last_positions, new_model, positions, train
    from dealrec.recommenders.tiger.files import load, load_checkpoint, save, save_checkpoint

    settings = context.config.tiger
    warm, valid = catalogue_rows(context, "warm"), catalogue_rows(context, "valid", limit=settings.validation_samples)
    catalogue = Catalogue.of(read_table(context.input("data/items.parquet")))

    def save_untrained(folder: Path) -> None:
        ids = fitted_ids(context, warm, settings.codes, encoder=(settings.text_encoder, ENCODER))
        model = new_model(ids.vocab_size, **settings.t5.model_dump(), seed=warm_seed(context.config))
        save(folder, model, ids, catalogue.ids)

    model, ids, items = load(context.shard_once("untrained", save_untrained))
    path = context.shard(CHECKPOINT)
    checkpoint = load_checkpoint(path) if path.exists() else None
    with context.progress.bar("warmstart: epochs (fewer if it stops early)", settings.max_epochs) as advance:
        for _ in checkpoint.epochs if checkpoint else ():
            advance()

        def keep(state: Any) -> None:
            save_checkpoint(path, state)
            advance()

        epochs = train(
            model,
            ids,
            positions(warm, max_items=settings.max_items),
            last_positions(valid, max_items=settings.max_items) if valid else None,
            learning_rate=settings.learning_rate,
            batch_size=settings.batch_size,
            max_epochs=settings.max_epochs,
            patience=settings.patience,
            seed=warm_seed(context.config),
            start=checkpoint,
            keep=keep,
        )
    save(context.out / WARM, model, ids, items)
    best = max(epochs, key=lambda epoch: epoch.quality())
    context.facts |= {"sequences": len(warm), "epochs": len(epochs), "device": str(model.device)}
    context.facts |= {f"best_{name}": value for name, value in asdict(best).items()}


def start(context: Context) -> "TIGER":
    """The warm model; all its parameters learn."""
    recommender = fine_tuned(context, None)
    recommender.model.requires_grad_(True)
    return recommender


def save(recommender: Any, folder: Path) -> None:
    """The model and its semantic ids."""
    from dealrec.recommenders.tiger.files import save as write

    write(folder, recommender.model, recommender.ids, recommender.items)


def fine_tuned(context: Context, folder: Path | None) -> "TIGER":
    """The model of a folder; None: the warm one."""
    from dealrec.recommenders.tiger import TIGER
    from dealrec.recommenders.tiger.files import load

    model, ids, items = load(folder or warm_folder(context) / WARM)
    context.facts["device"] = str(model.device)
    return TIGER(model, ids, items, max_items=context.config.tiger.max_items)


def lines(context: Context, samples: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Tokens: of the history and the end, and the target's."""
    recommender = fine_tuned(context, None)
    encoded = (recommender.encode(history, target) for history, target in pairs(samples))
    return ({"input_ids": sample.input_ids, "labels": sample.labels} for sample in encoded)


def encoded(context: Context, samples: pl.DataFrame) -> "list[Sample]":
    """Each sample as tokens: there is no text."""
    from dealrec.sequences import Encoded, Sample

    return [Sample(Encoded(line["input_ids"], line["labels"])) for line in lines(context, samples)]


def tokenizer(config: Config) -> None:
    """None: semantic ids are its tokens."""


def start_folder(context: Context) -> Path:
    """The warm model."""
    return warm_folder(context) / WARM
