"""Evaluation: test loss and ranking without fine-tuning and of each training, for the same users."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from dealrec.columns import GENERATED, HISTORY, ITEM, LOSS, RANK, TARGET, USER
from dealrec.config import Config, EvaluateConfig
from dealrec.config.arms import ARMS, BASE, fine_tunings
from dealrec.devices import free_memory
from dealrec.engine.run_directory import read_table, write_table
from dealrec.errors import NonFinite
from dealrec.stages.context import Context, Stage
from dealrec.stages.recommenders import kinds
from dealrec.stages.recommenders.training import encode, mean_token_losses

if TYPE_CHECKING:
    from dealrec.recommenders.protocol import Recommender

_SHARED = (
    *(f"data/interactions-{part}.parquet" for part in ("train", "valid", "test")),
    *("data/samples-valid.parquet", "data/samples-test.parquet", "data/items.parquet", "warmstart"),
)
VALID = "valid.parquet"
_OF_COMPARISON = ("confidence", "resamples")  # settings of the stage after this one


def run(context: Context) -> None:
    """Evaluate what is not evaluated yet."""
    loss_users, ranking_users = test_users(read_table(context.input("data/samples-test.parquet")), context.config)
    _warn_of_repeats(context, ranking_users)
    for name in (BASE, *(tuning.name for tuning in fine_tunings(context.config))):
        model = () if name == BASE else (f"finetune/{name}",)
        if not all(context.input(folder).exists() for folder in model):
            continue  # an arm whose method failed
        evaluate = partial(_evaluate, context, name, loss_users, ranking_users)
        context.unit(name, evaluate, without=("finetune.seeds", *ARMS), inputs=(*_SHARED, *model))
        free_memory()


def test_users(samples: pl.DataFrame, config: Config) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The test samples whose loss is measured, and those of the users who are ranked for.

    Both are the first ones in an order drawn from the seed. A user none of whose test items can be recommended has no
    target, hence no loss, but is ranked for: what is recommended misses.
    """
    shuffled = samples[np.random.default_rng(config.seed).permutation(len(samples))]
    return shuffled.drop_nulls(TARGET)[: config.evaluate.loss_users], shuffled[: config.evaluate.ranking_users]


def _valid_samples(context: Context) -> pl.DataFrame:
    """The first validation samples in an order drawn from the seed."""
    samples = read_table(context.input("data/samples-valid.parquet"))
    order = np.random.default_rng(context.config.seed).permutation(len(samples))
    return samples[order[: context.config.evaluate.valid_samples]]


def _evaluate(context: Context, arm: str, loss_users: pl.DataFrame, ranking_users: pl.DataFrame, out: Path) -> None:
    """Write `per_user.parquet` and `metrics.json` of one training of an arm; `base` is without fine-tuning."""
    from dealrec.evaluation import catalogue_metrics, ranking_metrics

    settings = context.config.evaluate
    folder = None if arm == BASE else context.input(f"finetune/{arm}")
    recommender = kinds.kind(context.config).fine_tuned(context, folder)
    losses = pl.DataFrame({USER: loss_users[USER], LOSS: _losses(context, arm, recommender, loss_users)})
    if settings.valid_samples:
        valid = _valid_samples(context)
        table = pl.DataFrame({USER: valid[USER], LOSS: _losses(context, arm, recommender, valid)})
        write_table(out / VALID, table, key=USER)
    if settings.ranking_users == 0:
        write_table(out / "per_user.parquet", losses, key=USER)
        _write_means(out, arm, losses, settings, catalogue={})
        return
    recommended, written = _recommend(context, arm, recommender, ranking_users)
    metrics = ranking_metrics(recommended, _relevant(context, ranking_users), ks=settings.ks)
    metrics = metrics.join(pl.DataFrame({USER: ranking_users[USER], GENERATED: written}), on=USER, how="left")
    per_user = losses.join(metrics, on=USER, how="full", coalesce=True)
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
    return [LOSS, *(f"{name}@{k}" for k in settings.ks for name in ("recall", "ndcg", "mrr"))]


def _warn_of_repeats(context: Context, users: pl.DataFrame) -> None:
    """Warn of test items that cannot be recommended since the user had them before."""
    relevant = _relevant(context, users)
    repeats = len(relevant.join(_before(context), on=[USER, ITEM], how="semi"))
    if repeats and context.config.evaluate.exclude_seen:
        context.warn(
            f"{repeats:,} of {len(relevant):,} test interactions are of items that the user had before; with"
            " evaluate.exclude_seen they cannot be recommended and count as misses"
        )


def _relevant(context: Context, users: pl.DataFrame) -> pl.DataFrame:
    """Test items of the users: user_id, item_id."""
    test = read_table(context.input("data/interactions-test.parquet"))
    return test.join(users, on=USER, how="semi").select(USER, ITEM)


def _before(context: Context) -> pl.DataFrame:
    """What users had before the test part: user_id, item_id."""
    parts = [read_table(context.input(f"data/interactions-{part}.parquet")) for part in ("train", "valid")]
    return pl.concat(parts).select(USER, ITEM)


def _losses(context: Context, arm: str, recommender: "Recommender", users: pl.DataFrame) -> list[float]:
    import torch

    losses = mean_token_losses(
        recommender,
        encode(recommender, users),
        batch_tokens=context.config.evaluate.batch_tokens,
        watch=lambda plan: context.track(plan, f"test loss of {arm}, batches"),
    )
    bad = users[USER].to_frame().filter(~pl.Series(torch.isfinite(losses).tolist()))[USER].to_list()
    if bad:
        raise NonFinite(
            f"evaluate: the loss of {arm} is NaN or infinite for {len(bad)} users, the first {bad[:5]}",
            "Lower finetune.learning_rate, or check the LLM's weights.",
        )
    return [float(loss) for loss in losses]


def _recommend(
    context: Context, arm: str, recommender: "Recommender", users: pl.DataFrame
) -> tuple[pl.DataFrame, list[str]]:
    """Ranked items of each user (user_id, item_id, rank), and what the model wrote for each."""
    settings = context.config.evaluate
    recommendations = recommender.recommend(
        users[HISTORY].to_list(),
        seen=_seen(context, users) if settings.exclude_seen else [[] for _ in range(len(users))],
        k=max(settings.ks),
        beams=settings.beams,
        batch_size=settings.batch_size,
        watch=lambda plan: context.track(plan, f"recommendations by {arm}, batches"),
    )
    ids = pl.Series([recommendation.items for recommendation in recommendations], dtype=pl.List(users[TARGET].dtype))
    table = pl.DataFrame({USER: users[USER], ITEM: ids}).explode(ITEM).drop_nulls(ITEM)
    ranked = table.with_columns(pl.int_range(1, pl.len() + 1).over(USER).alias(RANK))
    return ranked, [recommendation.written for recommendation in recommendations]


def _seen(context: Context, users: pl.DataFrame) -> list[list[Any]]:
    """The items that each user has interacted with before the test part."""
    before = _before(context).join(users, on=USER, how="semi").group_by(USER).agg(pl.col(ITEM).unique())
    items = dict(zip(before[USER].to_list(), before[ITEM].to_list(), strict=True))
    return [sorted(items[user]) for user in users[USER].to_list()]


STAGE = Stage(
    "evaluate",
    5,
    run,
    (*_SHARED, "finetune"),
    (
        *("seed", "finetune.seeds"),
        *(f"evaluate.{name}" for name in EvaluateConfig.model_fields if name not in _OF_COMPARISON),
        *kinds.SETTINGS,
        *ARMS,
    ),
    kinds.files,
    kinds.machine,
)
