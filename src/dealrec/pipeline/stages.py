"""The pipeline, stage by stage; it reads as the table of contents of the method.

data -> surrogate -> influence -> warmstart -> effort -> select -> export -> finetune -> evaluate -> report

Heavy imports happen inside the stage that needs them: the command line must start quickly.
"""

from dataclasses import asdict
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl

from dealrec.columns import (
    CANDIDATES,
    CATEGORY,
    EFFORT,
    EPOCH,
    HIGH,
    INFLUENCE,
    ITEM,
    ITEM_INDEX,
    KEPT,
    LOW,
    NORM,
    OVERALL,
    POSITION,
    RANK,
    SAMPLE,
    STRATUM,
    TARGET,
    TOKENS,
    TRAIN_LOSS,
    USER,
    VALID_MRR,
    VALID_NDCG,
)
from dealrec.data import sources
from dealrec.pipeline.arms import BASE, SELECTED, FineTuning, fine_tunings, random_arms, selected_arms
from dealrec.pipeline.kinds import kind
from dealrec.pipeline.stage import Context
from dealrec.pipeline.tables import PARTS, join_scores, merge_shards, read_samples, write_table

LEAK = (
    "split 'leave-last-out': the training part holds interactions later than some of the test part,"
    " so the future leaks into training; results are comparable within this run only"
)


def data(context: Context) -> None:
    """Interactions, items and samples of the three parts."""
    from dealrec.data import samples, splits

    settings = context.config.data
    with context.progress.bar("data: reading"):
        source = sources.read(settings, warn=context.warn)
    interactions = source.interactions
    if settings.min_rating is not None:
        interactions = splits.min_rating(interactions, minimum=settings.min_rating)
    if settings.split == "column" or settings.format == "dealrec":
        parts = splits.split_by_column(interactions)
    elif settings.split == "time":
        parts = splits.split_by_time(interactions, valid_share=settings.valid_share, test_share=settings.test_share)
    else:
        parts = splits.split_leave_last_out(interactions)
        context.warn(LEAK)
    parts = splits.with_positions(splits.k_core(parts, settings.k_core))
    items = splits.catalogue(source.items, parts.train, restrict=settings.k_core > 0)
    if absent := len(splits.absent_items(source.items, parts.train)):
        context.warn(f"{absent:,} training items are not in the items file; their ids stand in as titles")
    known = parts.map(lambda table: table.filter(pl.col(ITEM).is_in(items[ITEM].implode())))
    keep = {"samples_per_user": settings.samples_per_user, "max_history": settings.max_history}
    earlier, later = splits.split_warm(parts.train, share=settings.warm_share)
    made = {
        "warm": samples.training_samples(earlier, samples_per_user=1, max_history=max(1, len(earlier))),
        "train": samples.training_samples(parts.train, among=later, **keep),
        "valid": samples.held_out_samples(known.train, known.valid, max_history=settings.max_history),
        "test": samples.held_out_samples(
            pl.concat([known.train, known.valid]), known.test, max_history=settings.max_history
        ),
    }
    for part, table in {"train": parts.train, "valid": parts.valid, "test": parts.test}.items():
        write_table(context.out / f"interactions-{part}.parquet", table, key=[USER, POSITION])
    for part, table in made.items():
        write_table(context.out / f"samples-{part}.parquet", table, key=SAMPLE)
    write_table(context.out / "items.parquet", items, key=ITEM_INDEX)
    context.facts |= _data_facts(parts, items, made)
    if source.categories is not None:  # a table of its own, as only the report reads it
        write_table(context.out / "categories.parquet", source.categories, key=ITEM)
        context.facts["categories"] = source.categories[CATEGORY].explode().drop_nulls().n_unique()
    if unknown := len(parts.valid) + len(parts.test) - len(known.valid) - len(known.test):
        context.warn(
            f"{unknown:,} validation and test interactions are of items in neither the items file nor the training"
            " part; they are no targets, and in testing they count as misses"
        )
    if short := context.facts["users_too_short"]:
        context.warn(f"{short:,} users have fewer than two training interactions and yield no training sample")


def _data_facts(parts: Any, items: pl.DataFrame, made: dict[str, pl.DataFrame]) -> dict[str, int]:
    users = parts.train[USER].n_unique()
    return {
        "training_users": users,
        "users_too_short": parts.train.group_by(USER).len().filter(pl.col("len") < 2).height,
        "items": len(items),
        **{f"{part}_interactions": len(getattr(parts, part)) for part in PARTS},
        **{f"{part}_samples": len(table) for part, table in made.items()},
        "test_items_not_in_catalogue": len(parts.test.join(items, on=ITEM, how="anti")),
    }


def surrogate(context: Context) -> None:
    """The surrogate recommender, trained on the units and kept at its best epoch."""
    from safetensors.torch import save_model

    from dealrec.pipeline.surrogates import new_model, training_settings, units
    from dealrec.surrogate import Epoch, train

    train_units, valid = units(context, "train"), units(context, "valid")
    if not len(valid):
        context.warn("there are no validation samples: all surrogate.max_epochs are trained and the last is kept")
    model = new_model(context)
    history = train(
        model,
        train_units,
        valid if len(valid) else None,
        **training_settings(context.config),
        seed=context.config.seed,
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
    context.facts |= {"valid_ndcg@10": best.valid_ndcg, "device": str(next(model.parameters()).device)}


_EPOCHS = {EPOCH: pl.Int64, TRAIN_LOSS: pl.Float64, VALID_NDCG: pl.Float64, VALID_MRR: pl.Float64}


def influence(context: Context) -> None:
    """Influence of every training sample on the risk."""
    from dealrec.influence import influence as score
    from dealrec.pipeline.surrogates import batches, chosen_parameters, influence_memory, naming, solver, trained
    from dealrec.surrogate import per_sample_loss

    settings = context.config.influence
    model = trained(context)
    params = chosen_parameters(model, settings.parameters)
    train = batches(context, model, "train")
    target = batches(context, model, "valid") if settings.risk == "valid" else None
    ids = read_samples(context.input("data/samples-train.parquet"))[SAMPLE]
    numbers = sum(value.numel() for value in params.values())
    loss = per_sample_loss(model, loss=context.config.surrogate.loss)
    with context.progress.bar("influence: batches") as advance, naming(ids, train if target is None else None):
        method = solver(context, model, after_step=advance)
        memory = influence_memory(loss, method, params, train)
        taken = ", ".join(f"{name.removesuffix('_mib')} {size:,} MiB" for name, size in memory.items())
        context.progress.say(f"influence: {numbers:,} parameters; memory: {taken}")
        target = target.watched(advance) if target else None
        found = score(loss, params, train.watched(advance), solver=method, target_batches=target)
    scores = train.restore_order(found.scores.double().cpu())
    write_table(context.out / "scores.parquet", pl.DataFrame({SAMPLE: ids, INFLUENCE: scores.numpy()}), key=SAMPLE)
    solution = asdict(found.solution)
    del solution["vector"], solution["seconds"]
    context.facts |= {"risk": settings.risk, "solver": settings.solver.kind, **solution}
    context.facts |= {"parameters": numbers, **memory}
    context.facts |= {"share_positive": float((scores > 0).double().mean()), "device": str(found.scores.device)}


def warmstart(context: Context) -> None:
    """The recommender as the earlier part of the training period leaves it; nothing where no such part is set apart."""
    kind(context.config).warm_start(context)


def effort(context: Context) -> None:
    """The recommender's gradient norm for a pool of candidates, stratified by influence."""
    from dealrec.effort.length import correct_length, fitted_exponent
    from dealrec.pipeline.scoring import correlations, score_effort, spearman
    from dealrec.selection import budget_count, coverage_sample

    for warning in kind(context.config).check(context.config, context.run_dir):
        context.warn(warning)
    scores = pl.read_parquet(context.input("influence/scores.parquet")).sort(SAMPLE)
    size = budget_count(context.config.effort.pool, len(scores))
    picked = coverage_sample(scores[INFLUENCE].to_torch(), size, seed=context.config.seed)
    pool = scores[picked.numpy()].select(SAMPLE)
    write_table(context.out / "pool.parquet", pool, key=SAMPLE)
    samples = read_samples(context.input("data/samples-train.parquet")).join(pool, on=SAMPLE, how="semi").sort(SAMPLE)
    details = merge_shards(score_effort(context, samples), expected=pool[SAMPLE]).sort(SAMPLE)
    write_table(context.out / "details.parquet", details, key=SAMPLE)
    norms, tokens = details[NORM].to_torch(), details[TOKENS].to_torch()
    fitted, wanted = fitted_exponent(norms, tokens), context.config.effort.length_exponent
    exponent = fitted if wanted == "fitted" else wanted
    corrected = correct_length(norms, tokens, exponent=exponent)
    scored = details.select(SAMPLE, pl.Series(EFFORT, corrected.numpy()))
    write_table(context.out / "scores.parquet", scored, key=SAMPLE)
    scored = scored.join(details, on=SAMPLE).join(scores, on=SAMPLE)
    table = correlations(context, samples, scored, exponents=(exponent, fitted))
    write_table(context.out / "correlations.parquet", table, key=["exponent", "with"])
    context.facts |= {"pool": len(pool), "samples": len(scores), "length_exponent": exponent}
    context.facts["spearman_effort_completion_tokens"] = spearman(scored[EFFORT], details[TOKENS])


def select(context: Context) -> None:
    """The samples of each arm: one or several draws of the method, and random ones of the same number."""
    import torch

    from dealrec import selection

    config, settings = context.config, context.config.select
    everyone = read_samples(context.input("data/samples-train.parquet")).select(SAMPLE)
    pool = pl.read_parquet(context.input("effort/pool.parquet"))
    tables = {name: pl.read_parquet(context.input(f"{name}/scores.parquet")) for name in (INFLUENCE, EFFORT)}
    table = join_scores(pool, tables)
    overall = selection.combine_scores(
        table[INFLUENCE].to_torch(),
        table[EFFORT].to_torch(),
        effort_weight=settings.effort_weight,
    )
    budget = selection.budget_count(settings.budget, len(everyone))
    kept = selection.without_hardest(overall, share=settings.hard_prune)
    table, overall = table[kept.numpy()], overall[kept]
    strata = selection.assign_strata(overall, strata=settings.strata)
    scored = table.with_columns(pl.Series(OVERALL, overall.numpy()), pl.Series(STRATUM, strata.numpy()))
    drawn = {}
    for arm, seed in selected_arms(config).items():
        picked = selection.coverage_sample(overall, budget, strata=settings.strata, seed=seed)
        ranked = scored[picked.numpy()].sort(OVERALL, SAMPLE, descending=[True, False])
        drawn[arm] = ranked.select(SAMPLE, _RANKS, INFLUENCE, EFFORT, OVERALL, STRATUM)
        write_table(context.out / f"{arm}.parquet", drawn[arm], key=SAMPLE)
    selected = drawn[SELECTED]
    edges = selection.stratum_edges(overall, strata=settings.strata)
    ends = pl.DataFrame({STRATUM: range(settings.strata), LOW: edges[:-1].numpy(), HIGH: edges[1:].numpy()})
    counts = scored.group_by(STRATUM).len(CANDIDATES).join(selected.group_by(STRATUM).len(KEPT), on=STRATUM, how="left")
    write_table(context.out / "strata.parquet", ends.join(counts, on=STRATUM, how="left").fill_null(0), key=STRATUM)
    for number, arm in enumerate(random_arms(config)):
        generator = torch.Generator().manual_seed(config.seed * 1_000 + number + 1)
        order = torch.randperm(len(everyone), generator=generator)
        write_table(context.out / f"{arm}.parquet", everyone[order[:budget].numpy()], key=SAMPLE)
    context.facts |= {"budget": budget, "pool": len(pool), "samples": len(everyone), "strata_in_use": len(counts)}
    context.facts["selection_seeds"] = list(selected_arms(config).values())
    if len(drawn) > 1:
        context.facts["shared_by_two_selections"] = _mean_overlap([set(table[SAMPLE]) for table in drawn.values()])


_RANKS = pl.int_range(1, pl.len() + 1).alias(RANK)


def _mean_overlap(drawn: list[set[int]]) -> float:
    """The share of a selection that another one holds too, mean over all pairs."""
    shares = [len(one & other) / len(one) for one, other in combinations(drawn, 2)]
    return sum(shares) / len(shares)


def export(context: Context) -> None:
    """The selected samples as prompts and completions, and where they come from in a file beside them."""
    from dealrec.exporting import write_jsonl

    samples = read_samples(context.input("data/samples-train.parquet"))
    selected = pl.read_parquet(context.input("select/selected.parquet")).sort(RANK)
    chosen = selected.join(samples, on=SAMPLE, how="left", maintain_order="left")
    context.facts["rows"] = write_jsonl(context.out / "train.jsonl", kind(context.config).lines(context, chosen))
    lines = chosen.select(pl.int_range(1, pl.len() + 1).alias("line"), USER, TARGET, *selected.columns)
    write_table(context.out / "provenance.parquet", lines, key="line")


def finetune(context: Context) -> None:
    """One adapter or model for each training of each arm, all from one start; each is proven to change the outputs."""
    from dealrec.pipeline.launching import on_devices

    samples = read_samples(context.input("data/samples-train.parquet"))
    wanted = fine_tunings(context.config)
    for one in wanted:
        chosen = pl.read_parquet(context.input(f"select/{one.arm}.parquet"))
        job = partial(_fine_tune, one=one, samples=samples.join(chosen, on=SAMPLE, how="semi").sort(SAMPLE))
        context.folder_once(one.name, partial(on_devices, context, job, processes=context.config.finetune.processes))
    context.publish([one.name for one in wanted])
    context.facts["training_seeds"] = list(dict.fromkeys(one.seed for one in wanted))


def _fine_tune(context: Context, out: Path, *, one: FineTuning, samples: pl.DataFrame) -> None:
    from dealrec.pipeline.training import train_on

    made, settings = kind(context.config), context.config.finetune
    start, reload = made.start(context), partial(made.fine_tuned, context, out)
    train_on(context, one.name, start, samples, out, settings=settings, seed=one.seed, save=made.save, reload=reload)


def evaluate(context: Context) -> None:
    """Test loss and ranking without fine-tuning and of each training, for the same users, and what they say."""
    from dealrec.pipeline.comparison import compare
    from dealrec.pipeline.evaluation import evaluate_arm, test_users, warn_of_repeats

    users = test_users(read_samples(context.input("data/samples-test.parquet")), context.config)
    warn_of_repeats(context, users)
    evaluated = [BASE, *(one.name for one in fine_tunings(context.config))]
    for name in evaluated:
        context.folder_once(name, partial(evaluate_arm, context, name, users))
    context.publish(evaluated)
    compare(context)


def report(context: Context) -> None:
    """One self-contained HTML page."""
    from dealrec.reporting import write_report

    write_report(context.run_dir, context.config, context.out / "report.html")
