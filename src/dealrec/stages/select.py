"""Selection: the samples of each arm."""

from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING

import polars as pl

from dealrec.columns import (
    CANDIDATES,
    HIGH,
    KEPT,
    LOW,
    OF_RECOMMENDER,
    OF_SURROGATE,
    OVERALL,
    RANK,
    REASON,
    SAMPLE,
    SCORE,
    STRATUM,
    SURROGATE_STATE,
)
from dealrec.config import Config
from dealrec.config.arms import RANDOM, SEEDS, SELECTED, Arm, arms, selected_arms
from dealrec.engine.run_directory import read_table, write_table
from dealrec.errors import ConfigError, DealrecError
from dealrec.stages.context import Context, Stage
from dealrec.stages.methods import method, method_files, reads_pool, require_times, signals_of
from dealrec.stages.signals import DATA_FILES, data_signals, files_of, signal_table, valid_table
from dealrec.stages.sizes import LENGTHS, Sizes

if TYPE_CHECKING:
    from dealrec.selection.methods import Method

_RANKS = pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias(RANK)


def run(context: Context) -> None:
    """Have each arm's method select; a further arm whose method fails is left out, and named."""
    selector = Selector(context)
    selections: dict[str, pl.DataFrame] = {}
    failures: dict[str, str] = {}
    seeds = selected_arms(context.config)
    for name, arm in arms(context.config).items():
        try:
            selections[name] = selector.select(arm, bare=arm.method == RANDOM and name not in seeds)
        except DealrecError as error:
            if name not in context.config.select.arms:
                raise
            failures[name] = str(error)
            context.warn(f"arm {name} is left out: {error}")
        else:
            write_table(context.out / f"{name}.parquet", selections[name], key=SAMPLE)
    candidates = selector.candidates(arms(context.config)[SELECTED], selections[SELECTED])
    write_table(context.out / "candidates.parquet", candidates, key=SAMPLE)
    if STRATUM in candidates.columns:
        strata = _strata(candidates, number=context.config.select.strata)
        write_table(context.out / "strata.parquet", strata, key=STRATUM)
        context.facts["strata_in_use"] = len(strata.filter(pl.col(CANDIDATES) > 0))
    context.facts |= {
        "budget": len(selections[SELECTED]),
        "budget_unit": selector.sizes.unit,
        "size": selector.sizes.total(selections[SELECTED]),
        "pool": len(candidates),
        "samples": len(selector.samples),
        "method": context.config.select.method,
        "selection_seeds": list(seeds.values()),
    }
    if failures:
        context.facts["failures"] = failures
    if len(seeds) > 1:
        shared = _mean_overlap([set(selections[name][SAMPLE]) for name in seeds])
        context.facts["shared_by_two_selections"] = shared
        if shared == 1:
            context.warn(
                f"all {len(seeds)} selections are the same: {context.config.select.method} draws nothing;"
                " dealrec compare repeats from the surrogate on"
            )


class Selector:
    """The samples with what follows from the data: what every arm selects from."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.samples, self.valid = data_signals(context)
        self.sizes = Sizes.of(context, pl.concat([self.samples, self.valid]))

    def select(self, arm: Arm, *, bare: bool = False) -> pl.DataFrame:
        """sample_id, rank, the signals, overall, and stratum or reason; bare: sample_id alone."""
        from dealrec.selection.coverage import budget_count, count_without_hardest

        by = method(arm.method)
        table = self._table(by, arm)
        budget = arm.budget
        if isinstance(budget, float):
            budget = budget_count(budget, self.sizes.total(self.samples))
        if budget > (there := self.sizes.total(table)) and arm.method != RANDOM:  # of which all samples will do
            of = "its " if self.sizes.unit == "samples" else f"the {there:,} of its "
            raise ConfigError(
                f"{by.name}: the budget means {budget:,} {self.sizes.unit}, above {of}{len(table):,} candidates",
                "Raise pool.size or lower the budget.",
            )
        share = float({**by.options, **arm.options}.get("hard_prune", 0.0)) if arm.method == "dealrec" else 0.0
        most = count_without_hardest(len(table), share=share)
        rows = self.sizes.within(budget, table, partial(self._chosen, by, table, arm), most=most)
        if bare:
            return rows.select(SAMPLE)
        if arm.method == "dealrec":
            return _ranked(_with_strata(table, arm).join(rows, on=SAMPLE, how="semi"))
        scores = rows.select(SAMPLE, pl.col(SCORE).alias(OVERALL), REASON)
        return _ranked(table.select(SAMPLE, *_scored(by)).join(scores, on=SAMPLE, how="inner"))

    def candidates(self, arm: Arm, selected: pl.DataFrame) -> pl.DataFrame:
        """Every candidate of an arm with the columns of the selected ones; rank null: it was not selected."""
        by = method(arm.method)
        table = self._table(by, arm)
        if arm.method == "dealrec":
            scores = _with_strata(table, arm)
        else:
            rows = self._chosen(by, table, arm, len(table)).select(SAMPLE, pl.col(SCORE).alias(OVERALL))
            scores = table.select(SAMPLE, *_scored(by)).join(rows, on=SAMPLE, how="left")
        extra = [name for name in (RANK, REASON) if name in selected.columns]
        return scores.join(selected.select(SAMPLE, *extra), on=SAMPLE, how="left").select(selected.columns)

    def _table(self, by: "Method", arm: Arm) -> pl.DataFrame:
        require_times(self.context.config, by)
        candidates = self.samples
        if by.of_validation:
            candidates = self.valid
        elif reads_pool(by.signals):
            pool = read_table(self.context.input("pool/pool.parquet"))
            candidates = candidates.join(pool, on=SAMPLE, how="semi")
        return signal_table(self.context, by.reads(arm.options), candidates)

    def _chosen(self, by: "Method", table: pl.DataFrame, arm: Arm, budget: int) -> pl.DataFrame:
        import torch

        from dealrec.selection.methods import chosen

        generator = torch.Generator().manual_seed(arm.seed)
        valid = valid_table(self.context, by.reads(arm.options), self.valid)
        return chosen(by, table, budget, generator, options=arm.options, valid=valid)


def _scored(by: "Method") -> list[str]:
    """The signals of a method that are scores, as a stage computed them; a vector is none."""
    return [name for name in by.signals if name in OF_SURROGATE + OF_RECOMMENDER and name != SURROGATE_STATE]


def _with_strata(table: pl.DataFrame, arm: Arm) -> pl.DataFrame:
    """Overall score (Eq. 13) and stratum beside the signals; no stratum: dropped as one of the hardest."""
    from dealrec import selection
    from dealrec.columns import EFFORT, INFLUENCE

    options = {**method(arm.method).options, **arm.options}
    influence, effort = table[INFLUENCE].to_torch(), table[EFFORT].to_torch()
    overall = selection.combine_scores(influence, effort, effort_weight=float(options["effort_weight"]))
    rows = selection.without_hardest(overall, share=float(options["hard_prune"]))
    strata = selection.assign_strata(overall[rows], strata=int(options["strata"]))
    ids = table[SAMPLE].gather(rows.numpy())
    strata_of = pl.DataFrame([ids, pl.Series(STRATUM, strata.numpy())])
    table = table.with_columns(pl.Series(OVERALL, overall.numpy()))
    return table.join(strata_of, on=SAMPLE, how="left", maintain_order="left")


def _ranked(scores: pl.DataFrame) -> pl.DataFrame:
    ranked = scores.sort(OVERALL, SAMPLE, descending=[True, False])
    return ranked.select(SAMPLE, _RANKS, *(name for name in scores.columns if name != SAMPLE))


def _strata(candidates: pl.DataFrame, *, number: int) -> pl.DataFrame:
    """stratum, its ends, how many candidates it has and how many were selected."""
    from dealrec import selection

    overall = candidates.filter(pl.col(STRATUM).is_not_null())[OVERALL].to_torch()
    edges = selection.stratum_edges(overall, strata=number)
    strata = pl.DataFrame({STRATUM: range(number), LOW: edges[:-1].numpy(), HIGH: edges[1:].numpy()})
    counts = candidates.group_by(STRATUM).agg(pl.len().alias(CANDIDATES), pl.col(RANK).count().alias(KEPT))
    return strata.join(counts, on=STRATUM, how="left").fill_null(0)


def _mean_overlap(selections: list[set[int]]) -> float:
    """The share of a selection that another one holds too, mean over all pairs."""
    shares = [len(left & right) / len(left) for left, right in combinations(selections, 2)]
    return sum(shares) / len(shares)


def stage(config: Config) -> Stage:
    """It reads what the methods of all arms do."""
    signals = signals_of(config)
    pool = ("pool/pool.parquet",) if reads_pool(signals) else ()
    lengths = (LENGTHS,) if config.select.budget_unit == "tokens" else ()
    inputs = (*DATA_FILES, *pool, *lengths, *files_of(signals))
    return Stage("select", 5, run, inputs, (*SEEDS, "select"), method_files)
