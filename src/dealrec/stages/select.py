"""Selection: the samples of each arm."""

from collections.abc import Mapping
from itertools import combinations

import polars as pl

from dealrec.columns import CANDIDATES, EFFORT, HIGH, INFLUENCE, KEPT, LOW, OVERALL, RANK, SAMPLE, STRATUM
from dealrec.config import SelectConfig
from dealrec.config.arms import SELECTED, random_arms, selected_arms
from dealrec.engine.run_directory import read_table, write_table
from dealrec.errors import DealrecError
from dealrec.stages.context import Context, Stage

_RANKS = pl.int_range(1, pl.len() + 1).alias(RANK)


def run(context: Context) -> None:
    """One or several draws of the method, and random ones of the same number."""
    from dealrec import selection

    config, settings = context.config, context.config.select
    samples = read_table(context.input("data/samples-train.parquet")).select(SAMPLE)
    pool = read_table(context.input("effort/pool.parquet"))
    scores = {name: read_table(context.input(f"{name}/scores.parquet")) for name in (INFLUENCE, EFFORT)}
    candidates = _candidates(join_scores(pool, scores), settings)
    pruned = candidates.filter(pl.col(STRATUM).is_not_null())
    overall = pruned[OVERALL].to_torch()
    budget = selection.budget_count(settings.budget, len(samples))
    selections = {}
    for arm, seed in selected_arms(config).items():
        rows = selection.coverage_sample(overall, budget, strata=settings.strata, seed=seed)
        ranked = pruned[rows.numpy()].sort(OVERALL, SAMPLE, descending=[True, False])
        selections[arm] = ranked.select(SAMPLE, _RANKS, INFLUENCE, EFFORT, OVERALL, STRATUM)
        write_table(context.out / f"{arm}.parquet", selections[arm], key=SAMPLE)
    ranks = selections[SELECTED].select(SAMPLE, RANK)
    candidates = candidates.join(ranks, on=SAMPLE, how="left").select(selections[SELECTED].columns)
    write_table(context.out / "candidates.parquet", candidates, key=SAMPLE)
    edges = selection.stratum_edges(overall, strata=settings.strata)
    strata = pl.DataFrame({STRATUM: range(settings.strata), LOW: edges[:-1].numpy(), HIGH: edges[1:].numpy()})
    counts = candidates.group_by(STRATUM).agg(pl.len().alias(CANDIDATES), pl.col(RANK).count().alias(KEPT))
    strata = strata.join(counts, on=STRATUM, how="left").fill_null(0)
    write_table(context.out / "strata.parquet", strata, key=STRATUM)
    _draw_random_arms(context, samples, budget)
    context.facts |= {"budget": budget, "pool": len(pool), "samples": len(samples)}
    context.facts["strata_in_use"] = len(strata.filter(pl.col(CANDIDATES) > 0))
    context.facts["selection_seeds"] = list(selected_arms(config).values())
    if len(selections) > 1:
        context.facts["shared_by_two_selections"] = _mean_overlap([set(table[SAMPLE]) for table in selections.values()])


def _candidates(scores: pl.DataFrame, settings: SelectConfig) -> pl.DataFrame:
    """Overall score and stratum beside sample_id, influence and effort; no stratum: dropped as one of the hardest."""
    from dealrec import selection

    influence, effort = scores[INFLUENCE].to_torch(), scores[EFFORT].to_torch()
    overall = selection.combine_scores(influence, effort, effort_weight=settings.effort_weight)
    rows = selection.without_hardest(overall, share=settings.hard_prune)
    strata = selection.assign_strata(overall[rows], strata=settings.strata)
    ids = scores[SAMPLE].gather(rows.numpy())
    strata_of = pl.DataFrame([ids, pl.Series(STRATUM, strata.numpy())])
    scores = scores.with_columns(pl.Series(OVERALL, overall.numpy()))
    return scores.join(strata_of, on=SAMPLE, how="left", maintain_order="left")


def _draw_random_arms(context: Context, samples: pl.DataFrame, budget: int) -> None:
    import torch

    for number, arm in enumerate(random_arms(context.config)):
        generator = torch.Generator().manual_seed(context.config.seed * 1_000 + number + 1)
        order = torch.randperm(len(samples), generator=generator)
        write_table(context.out / f"{arm}.parquet", samples[order[:budget].numpy()], key=SAMPLE)


def _mean_overlap(selections: list[set[int]]) -> float:
    """The share of a selection that another one holds too, mean over all pairs."""
    shares = [len(left & right) / len(left) for left, right in combinations(selections, 2)]
    return sum(shares) / len(shares)


def join_scores(samples: pl.DataFrame, scores: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Join score tables to samples by sample_id. A sample without a score is a fault and raises DealrecError."""
    for name, table in scores.items():
        joined = samples.join(table.select(SAMPLE, name), on=SAMPLE, how="left", validate="1:1")
        missing = joined.filter(pl.col(name).is_null())[SAMPLE]
        if len(missing):
            raise DealrecError(
                f"{len(missing)} samples have no {name} score, the first {missing.head(5).to_list()}",
                "Delete the stage's folder in the run directory and run again.",
            )
        samples = joined
    return samples.sort(SAMPLE)


STAGE = Stage(
    "select",
    2,
    run,
    ("data/samples-train.parquet", "influence/scores.parquet", "effort/pool.parquet", "effort/scores.parquet"),
    ("seed", "select"),
)
