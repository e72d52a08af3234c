"""Evaluation: test loss and ranking without fine-tuning and of each training, for the same users."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from dealrec.columns import GENERATED, HISTORY, ITEM, LOG_RANK, LOSS, PARTS, POSITION, RANK, SAMPLE, TARGET, USER
from dealrec.config import Config, EvaluateConfig
from dealrec.config.arms import ARMS, BASE, fine_tunings
from dealrec.devices import free_memory
from dealrec.engine.run_directory import read_table, write_table
from dealrec.errors import NonFinite
from dealrec.stages.context import Context, Stage
from dealrec.stages.recommenders import kinds
from dealrec.stages.recommenders.training import by_row, encode, mean_token_losses
from dealrec.stages.samples import rows_file

if TYPE_CHECKING:
    from dealrec.recommenders.protocol import Recommender

_SHARED = (
    *(f"data/interactions-{part}.parquet" for part in ("train", "valid", "test")),
    *("data/samples-valid.parquet", "data/samples-test.parquet", "data/items.parquet", "warmstart"),
)
VALID = "valid.parquet"
_STOP = "stop"  # the position of a target
_OF_COMPARISON = ("confidence", "resamples")  # settings of the stage after this one


def run(context: Context) -> None:
    """Evaluate what is not evaluated yet."""
    loss_samples, ranked = test_users(read_table(context.input("data/samples-test.parquet")), context.config)
    if len(ranked):
        _warn_of_repeats(context, ranked)
    for name in (BASE, *(tuning.name for tuning in fine_tunings(context.config))):
        model = () if name == BASE else (f"finetune/{name}",)
        if not all(context.input(folder).exists() for folder in model):
            continue  # an arm whose method failed
        evaluate = partial(_evaluate, context, name, loss_samples, ranked)
        context.unit(name, evaluate, without=("finetune.seeds", *ARMS), inputs=(*_SHARED, *rows_file(context), *model))
        free_memory()


def test_users(samples: pl.DataFrame, config: Config) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The test samples whose loss is measured, and those of the users who are ranked for.

    Both are of the first users in an order drawn from the seed. A target that cannot be recommended has no loss, but is
    ranked for: what is recommended misses.
    """
    shuffled = samples[np.random.default_rng(config.seed).permutation(len(samples))]
    settings = config.evaluate
    return _of_users(shuffled.drop_nulls(TARGET), settings.loss_users), _of_users(shuffled, settings.ranking_users)


def _of_users(samples: pl.DataFrame, number: int | None) -> pl.DataFrame:
    """The samples of the first users."""
    users = samples.select(USER).unique(maintain_order=True)[:number]
    return samples.join(users, on=USER, how="semi", maintain_order="left")


def _valid_samples(context: Context) -> pl.DataFrame:
    """The first validation samples in an order drawn from the seed."""
    samples = read_table(context.input("data/samples-valid.parquet"))
    order = np.random.default_rng(context.config.seed).permutation(len(samples))
    return samples[order[: context.config.evaluate.valid_samples]]


def _evaluate(context: Context, arm: str, loss_samples: pl.DataFrame, ranked: pl.DataFrame, out: Path) -> None:
    """Write `per_user.parquet` and `metrics.json` of one training of an arm; `base` is without fine-tuning.

    Of a user with several targets what is measured is their mean.
    """
    from dealrec.evaluation import catalogue_metrics, ranking_metrics

    settings = context.config.evaluate
    folder = None if arm == BASE else context.input(f"finetune/{arm}")
    recommender = kinds.kind(context.config).fine_tuned(context, folder)
    losses = _losses(context, arm, recommender, loss_samples)
    if settings.valid_samples:
        write_table(out / VALID, _losses(context, arm, recommender, _valid_samples(context)), key=USER)
    if settings.ranking_users == 0:
        write_table(out / "per_user.parquet", losses, key=USER)
        _write_means(out, arm, losses, settings, catalogue={})
        return
    recommended, written, ranks = _recommend(context, arm, recommender, ranked)
    # A list of recommendations is of a sample: to the metrics, that is a user.
    recommended = recommended.rename({SAMPLE: USER})
    of_sample = ranking_metrics(recommended, _relevant(context, ranked).rename({SAMPLE: USER}), ks=settings.ks)
    scores = ranked.join(of_sample, left_on=SAMPLE, right_on=USER, how="left")
    if settings.log_rank:
        scores = scores.join(ranks.select(SAMPLE, pl.col(RANK).log().alias(LOG_RANK)), on=SAMPLE, how="left")
    metrics = scores.group_by(USER, maintain_order=True).agg(pl.col(measures(settings)[1:]).mean())
    first = pl.DataFrame({USER: ranked[USER], GENERATED: written}).unique(USER, keep="first", maintain_order=True)
    per_user = losses.join(metrics.join(first, on=USER, how="left"), on=USER, how="full", coalesce=True)
    write_table(out / "per_user.parquet", per_user, key=USER)
    items = read_table(context.input("data/items.parquet"))
    trained_on = read_table(context.input("data/interactions-train.parquet"))
    catalogue = catalogue_metrics(recommended, items, trained_on, ks=settings.ks) if len(recommended) else {}
    _write_means(out, arm, per_user, settings, catalogue=catalogue)


def _write_means(
    out: Path, arm: str, per_user: pl.DataFrame, settings: EvaluateConfig, *, catalogue: dict[str, float]
) -> None:
    means = {name: {"mean": per_user[name].mean(), "n": per_user[name].count()} for name in measures(settings)}
    content = {"arm": arm, "metrics": means, "catalogue": catalogue}
    (out / "metrics.json").write_text(json.dumps(content, indent=2) + "\n")


def measures(settings: EvaluateConfig) -> list[str]:
    """The names of what is measured of each user."""
    if settings.ranking_users == 0:
        return [LOSS]
    log_rank = [LOG_RANK] if settings.log_rank else []
    return [LOSS, *log_rank, *(f"{name}@{k}" for k in settings.ks for name in ("recall", "ndcg", "mrr"))]


def _warn_of_repeats(context: Context, samples: pl.DataFrame) -> None:
    """Warn of test items that cannot be recommended since the user had them before."""
    relevant = _relevant(context, samples)
    repeats = len(relevant.join(_before(context, samples), on=[SAMPLE, ITEM], how="semi"))
    if repeats and context.config.evaluate.exclude_seen:
        context.warn(
            f"{repeats:,} of {len(relevant):,} test interactions are of items that the user had before; with"
            " evaluate.exclude_seen they cannot be recommended and count as misses"
        )


def _relevant(context: Context, samples: pl.DataFrame) -> pl.DataFrame:
    """What each sample's recommendations should hold: sample_id, item_id.

    All test items of the user, where the first is the target; else the target.
    """
    test = read_table(context.input("data/interactions-test.parquet"))
    key = [USER] if context.config.data.targets == "first" else [USER, POSITION]
    return test.select(USER, ITEM, POSITION).join(samples.select(SAMPLE, *key), on=key).select(SAMPLE, ITEM)


def _before(context: Context, samples: pl.DataFrame) -> pl.DataFrame:
    """What each sample's user had before its target: sample_id, item_id."""
    parts = [read_table(context.input(f"data/interactions-{part}.parquet")) for part in PARTS]
    interactions = pl.concat([part.select(USER, ITEM, POSITION) for part in parts])
    before = interactions.join(samples.select(SAMPLE, USER, pl.col(POSITION).alias(_STOP)), on=USER)
    return before.filter(pl.col(POSITION) < pl.col(_STOP)).select(SAMPLE, ITEM)


def _losses(context: Context, arm: str, recommender: "Recommender", samples: pl.DataFrame) -> pl.DataFrame:
    """user_id, loss: the mean over the user's samples."""
    import torch

    samples = by_row(context, samples)
    losses = mean_token_losses(
        recommender,
        encode(context, recommender, samples),
        batch_tokens=context.config.evaluate.batch_tokens,
        watch=lambda plan: context.track(plan, f"test loss of {arm}, batches"),
    )
    bad = samples[USER].filter(~pl.Series(torch.isfinite(losses).tolist())).unique(maintain_order=True).to_list()
    if bad:
        raise NonFinite(
            f"evaluate: the loss of {arm} is NaN or infinite for {len(bad)} users, the first {bad[:5]}",
            "Lower finetune.learning_rate, or check the LLM's weights.",
        )
    table = pl.DataFrame({USER: samples[USER], LOSS: losses.double().numpy()})
    return table.group_by(USER, maintain_order=True).mean()


def _recommend(
    context: Context, arm: str, recommender: "Recommender", samples: pl.DataFrame
) -> tuple[pl.DataFrame, list[str], pl.DataFrame]:
    """Ranked items of each sample (sample_id, item_id, rank), what the model wrote for each, and each target's rank.

    The last is sample_id, rank: of one that cannot be recommended behind all that can; null without evaluate.log_rank.
    """
    settings = context.config.evaluate
    recommendations = recommender.recommend(
        samples[HISTORY].to_list(),
        seen=_seen(context, samples) if settings.exclude_seen else [[] for _ in range(len(samples))],
        k=max(settings.ks),
        beams=settings.beams,
        batch_size=settings.batch_size,
        targets=samples[TARGET].to_list() if settings.log_rank else None,
        watch=lambda plan: context.track(plan, f"recommendations by {arm}, batches"),
    )
    ids = pl.Series([recommendation.items for recommendation in recommendations], dtype=pl.List(samples[TARGET].dtype))
    table = pl.DataFrame({SAMPLE: samples[SAMPLE], ITEM: ids}).explode(ITEM).drop_nulls(ITEM)
    ranked = table.with_columns(pl.int_range(1, pl.len() + 1).over(SAMPLE).alias(RANK))
    target_ranks = pl.Series([recommendation.target_rank for recommendation in recommendations], dtype=pl.Int64)
    written = [recommendation.written for recommendation in recommendations]
    return ranked, written, pl.DataFrame({SAMPLE: samples[SAMPLE], RANK: target_ranks})


def _seen(context: Context, samples: pl.DataFrame) -> list[list[Any]]:
    """The items that each sample's user has interacted with before its target."""
    before = _before(context, samples).group_by(SAMPLE).agg(pl.col(ITEM).unique())
    items = dict(zip(before[SAMPLE].to_list(), before[ITEM].to_list(), strict=True))
    return [sorted(items[sample]) for sample in samples[SAMPLE].to_list()]


STAGE = Stage(
    "evaluate",
    5,
    run,
    (*_SHARED, "finetune"),
    (
        *("seed", "finetune.seeds", "data.targets"),
        *(f"evaluate.{name}" for name in EvaluateConfig.model_fields if name not in _OF_COMPARISON),
        *kinds.SETTINGS,
        *ARMS,
    ),
    kinds.files,
    kinds.machine,
)
