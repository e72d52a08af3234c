"""Effort: the recommender's gradient norm for a pool of candidates."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from dealrec.columns import EFFORT, ITEM, LOSS, NORM, ROW, SAMPLE, TARGET, TOKENS, TRAIN_COUNT
from dealrec.engine.measure import peak_memory_of
from dealrec.engine.run_directory import merge_shards, read_table, write_table
from dealrec.errors import ConfigError, NonFinite
from dealrec.stages.context import Context, Stage
from dealrec.stages.recommenders import kinds
from dealrec.stages.recommenders.training import by_row, encode, per_sample, warn_of_cut_rows

if TYPE_CHECKING:
    from dealrec.recommenders.protocol import Recommender
    from dealrec.sequences import Encoded

EXPONENTS = (0.0, 0.5, 1.0)
MIB = 2**20


def run(context: Context) -> None:
    """The gradient norm of every candidate."""
    from dealrec.effort.length import correct_length, fitted_exponent
    from dealrec.evaluation.correlation import spearman

    for warning in kinds.kind(context.config).check(context.config, context.run_dir):
        context.warn(warning)
    pool = read_table(context.input("pool/pool.parquet"))
    samples = read_table(context.input("data/samples-train.parquet")).join(pool, on=SAMPLE, how="semi")
    rows = by_row(context, samples)
    key = ROW if ROW in rows.columns else SAMPLE
    details = per_sample(merge_shards(score_shards(context, rows), key=key, expected=rows[key]))
    warn_of_cut_rows(context)
    write_table(context.out / "details.parquet", details, key=SAMPLE)
    norms, tokens = details[NORM].to_torch(), details[TOKENS].to_torch()
    fitted, setting = fitted_exponent(norms, tokens), context.config.effort.length_exponent
    exponent = fitted if setting == "fitted" else setting
    corrected = correct_length(norms, tokens, exponent=exponent)
    efforts = details.select(SAMPLE, pl.Series(EFFORT, corrected.numpy()))
    write_table(context.out / "scores.parquet", efforts, key=SAMPLE)
    efforts = efforts.join(details, on=SAMPLE)
    table = correlations(context, samples, efforts, exponents=(exponent, fitted))
    write_table(context.out / "correlations.parquet", table, key=["exponent", "with"])
    context.facts |= {"pool": len(pool), "length_exponent": exponent}
    context.facts["spearman_effort_completion_tokens"] = spearman(efforts[EFFORT], details[TOKENS])


def score_shards(context: Context, samples: pl.DataFrame) -> list[Path]:
    """Score the samples a shard at a time: files of sample_id, norm, loss, tokens. Interrupted, a run keeps them."""
    size = context.config.effort.shard_size
    recommender = kinds.kind(context.config).start(context)
    encoded = encode(context, recommender, samples)
    shards = [encoded[start : start + size] for start in range(0, len(encoded), size)]
    batch_tokens = batch_tokens_for(context, recommender, shards)
    paths = []
    with context.progress.bar("effort: samples", len(encoded)) as advance:
        for start, shard in zip(range(0, len(encoded), size), shards, strict=True):
            paths.append(context.shard(f"{start:08d}.parquet"))
            ids = samples.select(name for name in (ROW, SAMPLE) if name in samples.columns)[start : start + size]
            if paths[-1].exists():
                for _ in shard:
                    advance()
            else:
                table = _score_shard(context, recommender, shard, ids, advance, batch_tokens=batch_tokens)
                write_table(paths[-1], table, key=ids.columns[0])
    context.facts["median_tokens"] = int(np.median([len(sample.input_ids) for sample in encoded]))
    return paths


def batch_tokens_for(context: Context, recommender: "Recommender", shards: "Sequence[Sequence[Encoded]]") -> int:
    """Tokens per batch: as the settings say, or as many as fit their memory by the peaks of small batches.

    They are chosen once: a run that is resumed goes on with the same batches. Raises ConfigError where nothing fits.
    """
    settings = context.config.effort
    if settings.batch_memory is None:
        return settings.batch_tokens
    path = context.shard("batch-tokens.json")
    if not path.exists():
        tokens = _measured_batch_tokens(context, recommender, shards, budget=settings.batch_memory * MIB)
        path.with_suffix(".tmp").write_text(json.dumps(tokens))
        path.with_suffix(".tmp").rename(path)
    context.facts["batch_tokens"] = json.loads(path.read_text())
    return int(context.facts["batch_tokens"])


def _measured_batch_tokens(
    context: Context, recommender: "Recommender", shards: "Sequence[Sequence[Encoded]]", *, budget: int
) -> int:
    from dealrec.effort import gradient_norms
    from dealrec.effort.memory import batch_size_of, fit_peak, largest_batches, probes
    from dealrec.sequences import collate

    model = recommender.model

    def peak(batch: "list[Encoded]") -> int:
        inputs = collate(batch, pad_id=recommender.pad_id, device=model.device)
        return peak_memory_of(
            lambda: gradient_norms(model, [inputs], parameters=context.config.effort.parameters), device=model.device
        )

    with context.progress.bar("effort: memory of small batches"):
        batches = probes([sample for shard in shards for sample in shard])
        try:
            peak(batches[0])  # the first pass of all makes what later ones use again
            memory = fit_peak([batch_size_of(batch) for batch in batches], [peak(batch) for batch in batches])
        except OSError as error:
            raise ConfigError(
                "effort.batch_memory: the peak memory of a process can be measured on Linux alone",
                "Set effort.batch_tokens in its place.",
            ) from error
    tokens, expected = largest_batches(shards, memory, budget=budget)
    if expected > budget:
        raise ConfigError(
            f"effort.batch_memory is {budget // MIB:,} MiB, but a single sample takes {expected / MIB:,.0f} MiB"
            f" ({memory.fixed / MIB:,.0f} MiB of it without any)",
            "Raise it, or set llm.prompt.max_prompt_tokens lower.",
        )
    context.progress.say(
        f"effort: batches of {tokens:,} tokens, expected to take {expected / MIB:,.0f} of {budget // MIB:,} MiB"
    )
    return tokens


def _score_shard(
    context: Context,
    recommender: "Recommender",
    shard: "Sequence[Encoded]",
    ids: pl.DataFrame,
    after_each: Callable[[], None],
    *,
    batch_tokens: int,
) -> pl.DataFrame:
    """One shard, in batches of samples alike in length. ids: of each, the columns that name it."""
    from dealrec.effort import norms_and_losses
    from dealrec.sequences import collate, plan_batches
    from dealrec.sequences.losses import IGNORED

    settings, model = context.config.effort, recommender.model
    plan = plan_batches([len(sample.input_ids) for sample in shard], batch_tokens=batch_tokens)

    def batches() -> Iterator[Any]:
        for batch in plan:
            yield collate([shard[i] for i in batch], pad_id=recommender.pad_id, device=model.device)
            for _ in batch:
                after_each()

    order = [i for batch in plan for i in batch]
    ids = ids[order]
    try:
        norms, losses = norms_and_losses(model, batches(), parameters=settings.parameters)
    except NonFinite as error:
        raise error.naming(ids[SAMPLE].to_list()) from None
    tokens = [sum(label != IGNORED for label in shard[i].labels) for i in order]
    columns = {NORM: norms.double().cpu().numpy(), LOSS: losses.double().cpu().numpy(), TOKENS: tokens}
    return pl.concat([ids, pl.DataFrame(columns)], how="horizontal")


def correlations(
    context: Context, samples: pl.DataFrame, scores: pl.DataFrame, *, exponents: Iterable[float]
) -> pl.DataFrame:
    """Spearman correlation of effort, under several exponents of length, with what it may be a proxy for.

    scores: sample_id, effort, norm, loss, tokens. Returns exponent, with, spearman: null where either is
    constant. popularity: training interactions of the target.
    """
    from dealrec.effort.length import correct_length
    from dealrec.evaluation.correlation import spearman

    items = read_table(context.input("data/items.parquet")).select(ITEM, TRAIN_COUNT)
    table = scores.join(samples.select(SAMPLE, TARGET), on=SAMPLE).join(items, left_on=TARGET, right_on=ITEM)
    norms, tokens = table[NORM].to_torch(), table[TOKENS].to_torch()
    rows = []
    for exponent in sorted({*EXPONENTS, *exponents}):
        effort = pl.Series(EFFORT, correct_length(norms, tokens, exponent=exponent).numpy())
        for name, column in ((TOKENS, TOKENS), (LOSS, LOSS), ("popularity", TRAIN_COUNT)):
            rows.append({"exponent": exponent, "with": name, "spearman": spearman(effort, table[column])})
    return pl.DataFrame(rows, schema={"exponent": pl.Float64, "with": pl.String, "spearman": pl.Float64})


STAGE = Stage(
    "effort",
    4,
    run,
    ("data/samples-train.parquet", "data/items.parquet", "pool/pool.parquet", "warmstart"),
    ("seed", "effort", *kinds.SETTINGS),
    kinds.files,
    kinds.machine,
)
