"""The cost of TIGER's warm start, from a few titles, steps and rankings."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dealrec.estimates.bench import Bench, Watched, seconds_each, seconds_of, watched
from dealrec.estimates.results import Expected
from dealrec.recommenders.tiger import (
    SemanticIds,
    embed_texts,
    fit,
    last_positions,
    make_semantic_ids,
    new_model,
    positions,
    rank,
    train,
)
from dealrec.recommenders.tiger.files import load_text_encoder, save
from dealrec.recommenders.tiger.training import level_losses
from dealrec.stages.recommenders.tiger import WARM
from dealrec.stages.tables import index_sequences, read_catalogue, read_samples

TITLES, STEPS, RANKED, EPOCHS = 256, 4, 32, 3  # titles, steps, ranked samples, epochs of the codes that are measured


def stand_in(bench: Bench) -> None:
    """An untrained TIGER with random semantic ids where the warm start would leave a trained one."""
    settings = bench.config.tiger
    catalogue = read_catalogue(bench.folder / "data" / "items.parquet")
    ids = _random_ids(bench, len(catalogue))
    model = new_model(ids.vocab_size, **settings.t5.model_dump(), seed=bench.config.seed)
    save(bench.stand_in("warmstart") / WARM, model, ids, catalogue.ids)


def warmstart(bench: Bench) -> Expected:
    """Embeddings of the titles, the codes, and epochs with a ranking of the validation samples after each."""
    settings, context = bench.config.tiger, bench.context("warmstart")
    catalogue = read_catalogue(context.input("data/items.parquet"))
    warm, valid = (
        [[index - 1 for index in one] for one in index_sequences(read_samples(context.input(name)), catalogue)]
        for name in ("data/samples-warm.parquet", "data/samples-valid.parquet")
    )
    coding = _coding_seconds(bench, [catalogue.titles[item] for item in catalogue.ids], known=_distinct(warm))
    ids = _random_ids(bench, len(catalogue))
    model = new_model(ids.vocab_size, **settings.t5.model_dump(), seed=bench.config.seed)
    examples = positions(warm, max_items=settings.max_items)
    epoch = _epoch_seconds(bench, model, ids, warm, len(examples))
    validated = min(settings.validation_samples, len(valid))
    if validated:
        epoch += _validation_seconds(bench, model, ids, valid) * validated
    total = coding + settings.max_epochs * epoch
    steps = -(-len(examples) // settings.batch_size)
    figures = {"titles": len(catalogue), "positions": len(examples), "steps_per_epoch": steps}
    figures |= {"ranked_per_epoch": validated}
    if not validated:
        return Expected(figures | {"epochs": settings.max_epochs}, total)
    note = f"all {settings.max_epochs:,} epochs are counted; early stopping (tiger.patience) may end it sooner"
    return Expected(figures | {"epochs_at_most": settings.max_epochs}, total, at_most=total, notes=(note,))


def _random_ids(bench: Bench, items: int) -> SemanticIds:
    codes = bench.config.tiger.codes
    generator = torch.Generator().manual_seed(bench.config.seed)
    drawn = torch.randint(codes.codes, (items, codes.levels), generator=generator)
    return make_semantic_ids(drawn, codes_per_level=codes.codes)


def _distinct(sequences: Sequence[Sequence[int]]) -> int:
    return len({row for sequence in sequences for row in sequence})


def _coding_seconds(bench: Bench, titles: Sequence[str], *, known: int) -> float:
    """Of embedding all titles and fitting codes to the known items."""
    settings = bench.config.tiger.codes
    start = time.perf_counter()
    encoder = load_text_encoder(bench.config.tiger.text_encoder)
    loading = time.perf_counter() - start
    some = titles[:: -(-len(titles) // TITLES)]
    embedded: list[Tensor] = []
    embedding = seconds_of(lambda: embedded.append(embed_texts(encoder, some))) * len(titles) / len(some)
    points = torch.randn(min(known, 8 * settings.batch_size), embedded[0].shape[1])
    options: dict[str, Any] = {**settings.model_dump(), "seed": bench.config.seed}
    fit(points, **options | {"epochs": 1})  # makes what later calls use again
    least, more = (seconds_of(partial(fit, points, **options | {"epochs": epochs})) for epochs in (1, 1 + EPOCHS))
    epoch = max(0.0, more - least) / EPOCHS
    return loading + embedding + (least + (settings.epochs - 1) * epoch) * known / len(points)


def _epoch_seconds(bench: Bench, model: Any, ids: SemanticIds, warm: list[list[int]], total: int) -> float:
    """Of one epoch without validation, from a few steps on whole sequences; the first step is not counted."""
    settings = bench.config.tiger
    wanted, taken, count = (STEPS + 1) * settings.batch_size, [], 0
    order = torch.randperm(len(warm), generator=torch.Generator().manual_seed(bench.config.seed))
    for row in order.tolist():
        taken.append(warm[row])
        count += len(warm[row]) - 1
        if count >= wanted:
            break
    some = positions(taken, max_items=settings.max_items)
    seen: Watched[Tensor] = []
    train(
        model,
        ids,
        some,
        None,
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        max_epochs=1 if len(some) > settings.batch_size else 2,
        patience=settings.patience,
        seed=bench.config.seed,
        watch=lambda batches: watched(batches, seen),
    )
    return seconds_each(seen, len) * total


def _validation_seconds(bench: Bench, model: Any, ids: SemanticIds, valid: list[list[int]]) -> float:
    """Of one validation sample: the ranking and the losses."""
    some = last_positions(valid[:RANKED], max_items=bench.config.tiger.max_items)

    def work() -> None:
        rank(model, ids, some, k=10, beams=20, exclude_seen=True)
        level_losses(model, ids, some)

    work()
    return seconds_of(work) / len(some)
