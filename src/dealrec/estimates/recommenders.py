"""The cost of what is done with the recommender: effort, fine-tuning and evaluation, each from a batch or two."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import torch

from dealrec.columns import HISTORY, SAMPLE
from dealrec.config import TrainingConfig
from dealrec.config.arms import BASE, fine_tunings
from dealrec.effort import norms_and_losses
from dealrec.engine.stage import Context
from dealrec.estimates.bench import LEAST, Bench, seconds_of
from dealrec.estimates.results import Expected
from dealrec.evaluation import bootstrap_crossed, bootstrap_mean, compare_arms
from dealrec.finetuning import train
from dealrec.recommenders.bigrec import BIGRec, ground
from dealrec.recommenders.bigrec.files import BLOCK
from dealrec.recommenders.protocol import Recommender
from dealrec.sequences import Encoded, collate, plan_batches
from dealrec.stages.evaluation import measures, test_users
from dealrec.stages.recommenders.kinds import kind
from dealrec.stages.recommenders.training import PROBE_TOKENS, PROBES, encode, mean_token_losses
from dealrec.stages.scoring import batch_tokens_for
from dealrec.stages.tables import read_samples

ENCODED, TITLES, QUERIES = 512, 128, 64  # samples that are turned into tokens, titles and queries, at most


def effort(bench: Bench) -> Expected:
    """From the gradient norms of the largest batch, and of more where it takes no time, by tokens."""
    context, settings = bench.context("effort"), bench.config.effort
    pool = len(pl.read_parquet(bench.folder / "effort" / "pool.parquet"))
    samples = read_samples(context.input("data/samples-train.parquet"))
    recommender, loading = _started(bench)
    drawn = samples.sample(pool, seed=bench.config.seed).sort(SAMPLE)
    encoded, encoding = _encoded(recommender, drawn)
    size = settings.shard_size
    shards = [encoded[start : start + size] for start in range(0, len(encoded), size)]
    choosing = time.perf_counter()
    batch_tokens = batch_tokens_for(context, recommender, shards)
    loading += time.perf_counter() - choosing
    batches = [[shard[i] for i in batch] for shard in shards for batch in _plan(shard, batch_tokens)]
    names = [f"{start:08d}.parquet" for start in range(0, pool, size)]
    left = len(bench.unfinished("effort", names)) / len(names)
    tokens = round(sum(map(_padded, batches)) * pool / len(encoded) * left)

    def score(batch: list[Encoded]) -> object:
        made = collate(batch, pad_id=recommender.pad_id, device=recommender.model.device)
        return norms_and_losses(recommender.model, [made], parameters=settings.parameters)

    score([min(encoded, key=lambda sample: len(sample.input_ids))])  # makes what later passes use again
    rate = _seconds_per_token(sorted(batches, key=_padded, reverse=True), score)
    return Expected({"samples": round(pool * left), "tokens": tokens}, loading + pool * encoding + tokens * rate)


def finetune(bench: Bench) -> Expected:
    """From two steps of one forward pass each, by tokens; as many trainings as there are of all arms."""
    context, settings = bench.context("finetune"), bench.config.finetune
    chosen = pl.read_parquet(context.input("select/selected.parquet"))
    samples = read_samples(context.input("data/samples-train.parquet")).join(chosen, on=SAMPLE, how="semi")
    left = len(bench.unfinished("finetune", [one.name for one in fine_tunings(bench.config)]))
    return trainings(bench, context, samples, settings, trainings=left)


def warmstart(bench: Bench) -> Expected:
    """Of BIGRec: one training on the samples of the earlier period."""
    context = bench.context("warmstart")
    samples = read_samples(context.input("data/samples-warm.parquet"))
    return trainings(bench, context, samples, bench.config.warmstart, trainings=1)


def trainings(
    bench: Bench, context: Context, samples: pl.DataFrame, settings: TrainingConfig, *, trainings: int
) -> Expected:
    """Of so many trainings on so many samples: loading, steps, validation, and the proof that they are saved."""
    recommender, loading = _started(bench)
    encoded, encoding = _encoded(recommender, samples)
    longest = sorted(encoded, key=lambda sample: -len(sample.input_ids))
    answering = seconds_of(lambda: mean_token_losses(recommender, longest[:PROBES], batch_tokens=PROBE_TOKENS))
    preparing, rate = _training_rate(bench, recommender, longest, settings)
    mean = sum(len(sample.input_ids) for sample in encoded) / len(encoded)
    tokens = round(mean * len(samples))
    steps = settings.epochs * -(-len(samples) // settings.batch_size)
    each = 2 * loading + preparing + 3 * answering + len(samples) * encoding
    each += settings.epochs * tokens * rate / settings.processes
    notes = []
    if settings.patience is not None:
        every = settings.checkpoint_every
        rounds = steps // every if isinstance(every, int) else settings.epochs
        valid = read_samples(context.input("data/samples-valid.parquet"))
        validated = min(settings.validation_samples, len(valid))
        each += rounds * validated * answering / min(PROBES, len(longest))
        notes.append(
            f"all steps are counted, and {validated:,} validation samples {rounds:,} times; early stopping"
            f" ({context.name}.patience) may end it sooner"
        )
    if settings.processes > 1:
        notes.append(
            f"{settings.processes} processes are taken to share the work without loss; the memory is that of each"
        )
    figures = {"trainings": trainings, "steps_each": steps, "samples": len(samples), "tokens_per_epoch": tokens}
    total = trainings * each
    at_most = total if settings.patience is not None else None
    # What was saved is loaded beside what was trained, to compare the two.
    copy = sum(value.numel() * value.element_size() for value in recommender.model.parameters())
    return Expected(figures, total, at_most, added_memory=copy, notes=tuple(notes))


def evaluate(bench: Bench) -> Expected:
    """From one batch of test losses, one of recommendations, and a few titles; the same for every arm."""
    context, settings, config = bench.context("evaluate"), bench.config.evaluate, bench.config
    recommender, loading = _started(bench)
    recommender.model.eval()
    loss_users, ranking_users = test_users(read_samples(context.input("data/samples-test.parquet")), config)
    scored, ranked = len(loss_users), len(ranking_users)
    encoded, encoding = _encoded(recommender, loss_users)
    batches = [[encoded[i] for i in batch] for batch in _plan(encoded, settings.batch_tokens)]
    tokens = round(sum(map(_padded, batches)) * scored / len(encoded))

    def losses(batch: list[Encoded]) -> object:
        return mean_token_losses(recommender, batch, batch_tokens=settings.batch_tokens)

    rate = _seconds_per_token(sorted(batches, key=_padded, reverse=True), losses)
    titles, grounding = _catalogue(bench, recommender, ranked) if isinstance(recommender, BIGRec) else (0.0, 0.0)
    writing = _recommending(bench, recommender, ranking_users)
    wanted = [BASE, *(one.name for one in fine_tunings(config))]
    left = bench.unfinished("evaluate", wanted)
    known = "items" in bench.shards.get("evaluate", ())
    each = loading + (scored + ranked) * encoding + tokens * rate + ranked * writing + grounding
    total = (0.0 if known else titles) + len(left) * each + _statistics(bench, max(scored, ranked))
    figures = {"arms": len(left), "loss_users": scored, "loss_tokens": tokens, "ranked_users": ranked}
    notes = []
    if len(left) * ranked * writing > total / 2:
        notes.append(f"ranking takes most of it; evaluate.ranking_users sets for how many users (now {ranked:,})")
    if not isinstance(recommender, BIGRec):
        return Expected(figures | {"beams": max(settings.beams, *settings.ks)}, total, notes=tuple(notes))
    figures |= {
        "beams": settings.beams,
        "new_tokens_at_most": settings.max_new_tokens,
        "titles": len(recommender.items),
    }
    note = f"titles are taken to be as long as the untrained LLM's, up to {settings.max_new_tokens:,} tokens"
    return Expected(figures, total, total, notes=(f"{note}; shorter ones end it sooner", *notes))


def _started(bench: Bench) -> tuple[Recommender, float]:
    """The recommender that fine-tuning starts from, and the seconds of its loading."""
    if bench.started is None:
        start = time.perf_counter()
        recommender = kind(bench.config).start(bench.context("effort"))
        bench.started = recommender, time.perf_counter() - start
    return bench.started


def _encoded(recommender: Recommender, samples: pl.DataFrame) -> tuple[list[Encoded], float]:
    """Some of the samples, or all if they are few, and the seconds of each."""
    some = samples if len(samples) <= ENCODED else samples.sample(ENCODED, seed=0)
    start = time.perf_counter()
    encoded = encode(recommender, some)
    return encoded, (time.perf_counter() - start) / len(some)


def _plan(samples: Sequence[Encoded], batch_tokens: int) -> list[list[int]]:
    return plan_batches([len(sample.input_ids) for sample in samples], batch_tokens=batch_tokens)


def _padded(batch: Sequence[Encoded]) -> int:
    return len(batch) * max(len(sample.input_ids) for sample in batch)


def _seconds_per_token(batches: Sequence[list[Encoded]], work: Callable[[list[Encoded]], object]) -> float:
    """Of batches in their order, until `LEAST` seconds have passed."""
    tokens, start = 0, time.perf_counter()
    for batch in batches:
        work(batch)
        tokens += _padded(batch)
        if time.perf_counter() - start >= LEAST:
            break
    return (time.perf_counter() - start) / tokens


def _training_rate(
    bench: Bench, recommender: Recommender, longest: Sequence[Encoded], settings: TrainingConfig
) -> tuple[float, float]:
    """Seconds of what comes before the first step, and of a token in a step; the longest samples take most memory."""
    size = settings.micro_batch_size
    samples = (list(longest[: 2 * size]) * (2 * size))[: 2 * size]
    stamps = [time.perf_counter()]
    with TemporaryDirectory(dir=bench.folder) as scratch:
        train(
            recommender.model,
            samples,
            pad_id=recommender.pad_id,
            scratch=Path(scratch),
            epochs=1,
            learning_rate=settings.learning_rate,
            batch_size=size,
            micro_batch_size=size,
            seed=bench.config.seed,
            after_step=lambda: stamps.append(time.perf_counter()),
        )
    recommender.model.eval()
    start, first, second = stamps
    step = second - first
    tokens = sum(len(sample.input_ids) for sample in samples) / 2
    return max(0.0, first - start - step), step / tokens


def _recommending(bench: Bench, recommender: Recommender, users: pl.DataFrame) -> float:
    """Seconds of a user, from one batch drawn at random."""
    settings = bench.config.evaluate
    some = users.sample(min(settings.batch_size, len(users)), seed=bench.config.seed)
    histories = some[HISTORY].to_list()
    seen = histories if settings.exclude_seen else [[] for _ in histories]
    options: dict[str, Any] = {"k": max(settings.ks), "beams": settings.beams, "batch_size": settings.batch_size}
    return seconds_of(lambda: recommender.recommend(histories, seen=seen, **options)) / len(some)


def _catalogue(bench: Bench, recommender: BIGRec, users: int) -> tuple[float, float]:
    """Seconds of embedding all titles, and of looking up the users' titles among them; from here on a few stand in."""
    settings, items = bench.config.evaluate, len(recommender.items)
    generator = torch.Generator().manual_seed(bench.config.seed)
    rows = torch.randperm(items, generator=generator)[:TITLES].tolist()
    start = time.perf_counter()
    block = recommender.embed_items(rows)
    seconds = time.perf_counter() - start
    tokens = [
        len(recommender.tokenizer.encode(recommender.prompter.bare_title(recommender.items[row]))) for row in rows
    ]
    batches = plan_batches(tokens, batch_tokens=settings.batch_tokens)
    padded = sum(len(batch) * max(tokens[i] for i in batch) for batch in batches)
    # All titles together fall into batches alike in length, which pad next to nothing.
    embedding = seconds * sum(tokens) / padded * items / len(rows)
    recommender.catalogue = lambda _recommender: [block]
    recommender.grounding["counts"] = recommender.grounding["counts"][rows]
    many = torch.randn(min(items, BLOCK), block.shape[1], generator=generator)
    queries = many[torch.randint(len(many), (min(users, QUERIES),), generator=generator)]
    options: dict[str, Any] = {"counts": torch.ones(len(many)), "popularity_weight": settings.popularity_weight}
    looking_up = seconds_of(lambda: ground(queries, [many], seen=[[]] * len(queries), k=max(settings.ks), **options))
    return embedding, looking_up * users * items / (len(queries) * len(many))


def _statistics(bench: Bench, users: int) -> float:
    """Seconds of the intervals and tests of all measures, from those of one."""
    config, settings = bench.config, bench.config.evaluate
    arms, seeds = config.select.selections + config.select.random_arms, config.finetune.seeds
    draw = np.random.default_rng(config.seed)
    selected = draw.random((config.select.selections, seeds, users))
    random = draw.random((config.select.random_arms, seeds, users))
    how: dict[str, Any] = {"confidence": settings.confidence, "resamples": settings.resamples, "seed": config.seed}
    one = seconds_of(lambda: bootstrap_mean(selected[0, 0], **how)) * (1 + arms * seeds)
    one += 3 * seconds_of(lambda: bootstrap_crossed(selected, **how))
    if len(random):
        one += seconds_of(lambda: compare_arms(selected, random, **how, lower_is_better=False))
    return one * len(measures(settings))
