"""Evaluation as the stage uses it: the users, the measures of one arm, and the comparison of arms."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dealrec.columns import GENERATED, HISTORY, ITEM, LOSS, RANK, USER
from dealrec.config import Config, EvaluateConfig
from dealrec.effort import collate, plan_batches, sequence_losses
from dealrec.errors import NonFinite
from dealrec.evaluation import bootstrap_mean, ranking_metrics, verdict
from dealrec.pipeline.llm import encode, load, prompter
from dealrec.pipeline.stage import Context
from dealrec.pipeline.tables import Catalogue, read_catalogue, write_table


def test_users(samples: pl.DataFrame, config: Config) -> pl.DataFrame:
    """Test samples in an order drawn from the seed: the first ones are those that are evaluated."""
    order = np.random.default_rng(config.seed).permutation(len(samples))
    most = max(_at_most(config.evaluate.loss_users, samples), _at_most(config.evaluate.ranking_users, samples))
    return samples[order[:most]]


def evaluate_arm(context: Context, arm: str, users: pl.DataFrame, out: Path) -> None:
    """Write `per_user.parquet` and `metrics.json` of one arm; `base` is the LLM without an adapter."""
    from dealrec.recommenders.bigrec.model import load_adapter

    settings = context.config.evaluate
    llm, tokenizer = load(context)
    items = _item_embeddings(context, llm, tokenizer)
    model = llm if arm == "base" else load_adapter(llm, context.input(f"finetune/{arm}"))
    scored = users[: _at_most(settings.loss_users, users)]
    losses = pl.DataFrame({USER: scored[USER], LOSS: _losses(context, arm, model, tokenizer, scored)})
    ranked = users[: _at_most(settings.ranking_users, users)]
    titles = _generate(context, arm, model, tokenizer, ranked)
    recommended = _recommend(context, model, tokenizer, items, ranked, titles)
    metrics = ranking_metrics(recommended, _relevant(context, ranked), ks=settings.ks)
    metrics = metrics.join(pl.DataFrame({USER: ranked[USER], GENERATED: titles}), on=USER, how="left")
    per_user = losses.join(metrics, on=USER, how="full", coalesce=True)
    write_table(out / "per_user.parquet", per_user, key=USER)
    means = {name: asdict(_interval(per_user[name], context.config)) for name in _measures(settings)}
    (out / "metrics.json").write_text(json.dumps({"arm": arm, "metrics": means}, indent=2) + "\n")


def compare(context: Context, compared: Sequence[str]) -> None:
    """Write `comparison.json`: for each measure selected - random, paired by user, random averaged over its arms."""
    tables = {arm: pl.read_parquet(context.out / arm / "per_user.parquet").sort(USER) for arm in compared}
    random_arms = [arm for arm in compared if arm.startswith("random-")]
    found: dict[str, Any] = {}
    for name in _measures(context.config.evaluate) if random_arms else []:
        random = sum((tables[arm][name] for arm in random_arms[1:]), tables[random_arms[0]][name]) / len(random_arms)
        interval = _interval(tables["selected"][name] - random, context.config)
        found[name] = {**asdict(interval), "verdict": verdict(interval, lower_is_better=name == LOSS)}
    content = {
        "arms": list(compared),
        "difference": "selected - random",
        "random_arms": len(random_arms),
        "measures": found,
    }
    (context.out / "comparison.json").write_text(json.dumps(content, indent=2) + "\n")


def warn_of_repeats(context: Context, users: pl.DataFrame) -> None:
    """Warn of test items that cannot be recommended since the user had them before."""
    settings = context.config.evaluate
    relevant = _relevant(context, users[: _at_most(settings.ranking_users, users)])
    repeats = len(relevant.join(_before(context), on=[USER, ITEM], how="semi"))
    if repeats and settings.exclude_seen:
        context.warn(
            f"{repeats:,} of {len(relevant):,} test interactions are of items that the user had before; with"
            " evaluate.exclude_seen they cannot be recommended and count as misses"
        )


def _relevant(context: Context, users: pl.DataFrame) -> pl.DataFrame:
    """Test items of the users: user_id, item_id."""
    test = pl.read_parquet(context.input("data/interactions-test.parquet"))
    return test.join(users, on=USER, how="semi").select(USER, ITEM)


def _before(context: Context) -> pl.DataFrame:
    """What users had before the test part: user_id, item_id."""
    parts = [pl.read_parquet(context.input(f"data/interactions-{part}.parquet")) for part in ("train", "valid")]
    return pl.concat(parts).select(USER, ITEM)


def _measures(settings: EvaluateConfig) -> list[str]:
    return [LOSS, *(f"{name}@{k}" for k in settings.ks for name in ("recall", "ndcg"))]


def _interval(values: pl.Series, config: Config) -> Any:
    settings = config.evaluate
    measured = values.drop_nulls().to_numpy().astype(np.float64)
    return bootstrap_mean(measured, confidence=settings.confidence, resamples=settings.resamples, seed=config.seed)


def _at_most(wanted: int | None, users: pl.DataFrame) -> int:
    return len(users) if wanted is None else min(wanted, len(users))


def _losses(context: Context, arm: str, model: Any, tokenizer: Any, users: pl.DataFrame) -> list[float]:
    import torch

    encoded = encode(prompter(context, tokenizer), users)
    plan = plan_batches([len(s.input_ids) for s in encoded], batch_tokens=context.config.evaluate.batch_tokens)
    losses = torch.empty(len(encoded))
    with torch.inference_mode():
        for batch in context.track(plan, f"test loss of {arm}, batches"):
            inputs = collate([encoded[i] for i in batch], pad_id=tokenizer.pad_token_id, device=model.device)
            losses[batch] = sequence_losses(model, inputs).cpu()
    bad = users[USER].to_frame().filter(~pl.Series(torch.isfinite(losses).tolist()))[USER].to_list()
    if bad:
        raise NonFinite(
            f"evaluate: the test loss of {arm} is NaN or infinite for {len(bad)} users, the first {bad[:5]}",
            "Lower finetune.learning_rate, or check the LLM's weights.",
        )
    return [float(loss) for loss in losses]


def _generate(context: Context, arm: str, model: Any, tokenizer: Any, users: pl.DataFrame) -> list[str]:
    """A title for each user, in batches of prompts alike in length."""
    from dealrec.recommenders.bigrec import generate

    settings = context.config.evaluate
    made = prompter(context, tokenizer)
    prompts = [made.encode_prompt(history) for history in users[HISTORY].to_list()]
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    batches = [order[start : start + settings.batch_size] for start in range(0, len(order), settings.batch_size)]
    titles = [""] * len(prompts)
    for batch in context.track(batches, f"titles by {arm}, batches"):
        rows = [prompts[i] for i in batch]
        made_titles = generate(model, tokenizer, rows, beams=settings.beams, max_new_tokens=settings.max_new_tokens)
        for i, title in zip(batch, made_titles, strict=True):
            titles[i] = title
    return titles


def _item_embeddings(context: Context, llm: Any, tokenizer: Any) -> Any:
    """Embeddings of all titles by the base LLM; computed once, as every arm is grounded in the same space."""
    from safetensors.torch import load_file, save_file

    from dealrec.recommenders.bigrec import embed

    path = context.shard("items.safetensors")
    if not path.exists():
        made = prompter(context, tokenizer)
        catalogue = read_catalogue(context.input("data/items.parquet"))
        texts = [made.title(item).strip('"') for item in catalogue.ids]
        embedded = embed(
            llm,
            tokenizer,
            texts,
            batch_tokens=context.config.evaluate.batch_tokens,
            watch=lambda plan: context.track(plan, "titles of the catalogue, batches"),
        )
        staging = context.shard("items.tmp")
        save_file({"items": embedded}, staging)
        staging.rename(path)
    return load_file(path)["items"]


def _recommend(
    context: Context, model: Any, tokenizer: Any, items: Any, users: pl.DataFrame, titles: Sequence[str]
) -> pl.DataFrame:
    """Ranked items of each user: user_id, item_id, rank."""
    from contextlib import nullcontext

    from dealrec.recommenders.bigrec import embed, ground

    settings = context.config.evaluate
    catalogue = read_catalogue(context.input("data/items.parquet"))
    with model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext():
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        queries = embed(base, tokenizer, titles, batch_tokens=settings.batch_tokens)
    seen = _seen(context, users, catalogue) if settings.exclude_seen else [[] for _ in titles]
    ranked = ground(queries, items, seen=seen, k=max(settings.ks))
    ids = [[catalogue.ids[row] for row in rows] for rows in ranked]
    items_type = pl.List(pl.Int64 if all(isinstance(item, int) for item in catalogue.ids) else pl.String)
    table = pl.DataFrame({USER: users[USER], ITEM: pl.Series(ids, dtype=items_type)})
    return table.explode(ITEM).with_columns(pl.int_range(1, pl.len() + 1).over(USER).alias(RANK))


def _seen(context: Context, users: pl.DataFrame, catalogue: Catalogue) -> list[list[int]]:
    """Rows of the catalogue that each user has interacted with before the test part."""
    before = _before(context).join(users, on=USER, how="semi").group_by(USER).agg(pl.col(ITEM).unique())
    held = dict(zip(before[USER].to_list(), before[ITEM].to_list(), strict=True))
    index = catalogue.index  # validation items that are in no catalogue cannot be recommended anyway
    return [sorted(index[item] - 1 for item in held[user] if item in index) for user in users[USER].to_list()]
