"""DEALRec's three ways to fail, each with its figure and its remedy.

Effort dominates the overall score; users, items or scores are left uncovered; influence is inaccurate.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from dealrec.columns import CANDIDATES, EFFORT, INFLUENCE, KEPT, OVERALL, PARAMETERS, RISK, SHARE, SOLVER
from dealrec.config import Config
from dealrec.engine.manifest import read_manifest
from dealrec.engine.run_directory import Run
from dealrec.evaluation.correlation import spearman
from dealrec.formats import correlation, cut, number, percent
from dealrec.reporting.coverage import Group, Spread
from dealrec.reporting.notes import Note

DOMINATES = 0.8  # of the variance of the overall score
EXPECTED, MISSING = 8, 1 / 3  # least number that Random would draw of a bucket; what is too few of that
NAMED, LABEL_WIDTH = 5, 60  # categories in one warning, and characters of each
FEW_CANDIDATES = "Hardly any is a candidate: raise pool.size."
FEW_DRAWN = (
    "Lower select.strata: the fewer strata, the more evenly the candidates are drawn from. A larger select.budget"
    " covers more, too."
)
FEW_PREFERRED = "The method prefers others; a larger select.budget covers more, and so may another select.method."
OF_CEILING = 0.5  # of the most that the noise of retraining allows


@dataclass(frozen=True)
class Balance:
    """What the overall score is made of.

    effort, influence: its rank correlation with either. share: of its variance that is due to effort, its covariance
    with weighted effort over its variance. even: the effort weight at which both have equal shares.
    """

    effort: float | None
    influence: float | None
    share: float
    even: float | None

    @property
    def effort_dominates(self) -> bool:
        """Whether influence hardly counts."""
        return self.share > DOMINATES and (self.effort or 0.0) > (self.influence or 0.0)


def score_balance(pool: pl.DataFrame, *, effort_weight: float) -> Balance | None:
    """The balance of the candidates' scores; None where all overall scores are equal.

    With i and e scaled and o = i + w e, effort's share is cov(w e, o) / var(o); it is 1/2 at w = sd(i) / sd(e).
    """
    influence, effort = scaled(pool[INFLUENCE]), effort_weight * scaled(pool[EFFORT])
    overall = influence + effort
    if not len(overall) or overall.var() == 0:
        return None
    share = float(np.mean((effort - effort.mean()) * (overall - overall.mean())) / overall.var())
    spread = float(scaled(pool[EFFORT]).std())
    even = float(influence.std()) / spread if spread else None
    return Balance(spearman(pool[OVERALL], pool[EFFORT]), spearman(pool[OVERALL], pool[INFLUENCE]), share, even)


def scaled(values: ArrayLike) -> NDArray[np.float64]:
    """Min-max scaled, as for the overall score; a constant to 0."""
    array = np.asarray(values, dtype=np.float64)
    span = np.ptp(array) if len(array) else 0.0
    return (array - array.min()) / span if span else np.zeros_like(array)


def effort_dominates(run: Run[Config], balance: Balance | None) -> Iterator[Note]:
    """A warning where the selection is one of hard samples alone."""
    if balance is None or not balance.effort_dominates:
        return
    weight = run.config.select.effort_weight
    example = f", e.g. to {number(balance.even)}, where both have equal shares" if balance.even else ""
    yield Note(
        "select",
        f"{balance_in_words(balance)} The selection is one of hard samples, on which the recommender overfits.",
        "Effort dominates",
        f"Lower select.effort_weight (now {weight:g}){example}; select.hard_prune drops the hardest.",
    )


def balance_in_words(balance: Balance) -> str:
    """What the overall score is made of, as a sentence."""
    return (
        f"{percent(balance.share)} of the variance of the overall score is due to effort; its Spearman correlation is"
        f" {correlation(balance.effort)} with effort and {correlation(balance.influence)} with influence."
    )


def uncovered(run: Run[Config], spreads: Sequence[Spread], reach: Sequence[Group]) -> Iterator[Note]:
    """Warnings of users, items, times, categories and scores of which hardly anything was selected."""
    if not run.has("select"):
        return
    groups = {group.name: place for place, group in enumerate(reach)}
    budget, strata = reach[groups["selected"]].samples, run.config.select.method == "dealrec"
    for spread in spreads:
        by_remedy: dict[str, list[str]] = {}
        for bucket in spread.categories or spread.buckets:
            candidates = "pool" if "pool" in groups else "all"  # a method of no recommender's signal has no pool
            share, pool, selected = (bucket.shares[groups[name]] for name in ("all", candidates, "selected"))
            if budget * share < EXPECTED or selected > MISSING * share:
                continue
            line = (
                f"{cut(bucket.label, LABEL_WIDTH)}: {percent(share)} of all samples, but {percent(selected)} of the"
                f" selected ({percent(pool)} of the candidates)"
            )
            drawn = FEW_DRAWN if strata else FEW_PREFERRED
            by_remedy.setdefault(FEW_CANDIDATES if pool <= MISSING * share else drawn, []).append(line)
        name = f"Uncovered: {spread.name[:1].lower()}{spread.name[1:]}"
        for remedy, lines in by_remedy.items():
            if spread.categories:  # there may be hundreds; of ranges there are few
                more = [f"and {len(lines) - NAMED:,} more"] if len(lines) > NAMED else []
                lines = ["; ".join([*lines[:NAMED], *more])]
            yield from (Note("select", f"{spread.name}, {line}.", name, remedy) for line in lines)
    if strata:
        yield from _empty_strata(run)


def _empty_strata(run: Run[Config]) -> Iterator[Note]:
    strata = run.table("select/strata.parquet").filter(pl.col(CANDIDATES) > 0)
    empty = strata.filter(pl.col(KEPT) == 0)
    if len(empty):
        held = empty[CANDIDATES].sum()
        yield Note(
            "select",
            f"{len(empty):,} of {len(strata):,} strata with candidates give no sample, and so stand for none of their"
            f" {held:,} candidates; the budget is {run.facts('select')['budget']:,}.",
            "Uncovered: ranges of the overall score",
            f"Lower select.strata ({run.config.select.strata}), or raise select.budget to at least {len(strata):,}.",
        )


def influence_inaccurate(run: Run[Config]) -> Iterator[Note]:
    """Warnings of a solver that did not converge, and of influence that foretold retraining badly."""
    facts = run.facts("influence")
    if facts and not facts["converged"]:
        yield Note(
            "influence",
            f"The solver did not converge (relative residual {number(facts['residual'])} after"
            f" {facts['iterations']:,} iterations, damping {number(facts['damping'])}): the influence scores may be"
            " in the wrong order.",
            "Influence inaccurate",
            "Raise the solver's iterations or its damping (influence.solver), or take influence.solver.kind: cg.",
        )
    for row in fidelity_rows(run) or ():
        own, low, high, ceiling = (row[name] for name in ("own", "own_low", "own_high", "own_ceiling"))
        if low > 0 and high >= OF_CEILING * ceiling:
            continue
        yield Note(
            "influence",
            f"Influence foretold the risk after retraining with a rank correlation of {correlation(own)} (interval"
            f" {correlation(low)} to {correlation(high)}) where {percent(row[SHARE])} of the units are kept; noise"
            f" allows {correlation(ceiling)}.",
            "Influence inaccurate",
            "Take another influence.risk, influence.parameters or influence.solver, by the table of dealrec fidelity.",
        )


def fidelity_rows(run: Run[Config]) -> list[dict[str, Any]] | None:
    """The rows of a fidelity check of these very scores that stands in the run directory; None without one."""
    check = read_manifest(run.folder / "fidelity")
    model = "model.safetensors"
    if check is None or not run.has("influence"):
        return None
    if check.inputs.get(f"surrogate/{model}") != run.manifests["surrogate"].outputs.get(model):
        return None
    settings = run.config.influence
    rows = run.table("fidelity/fidelity.parquet").filter(
        pl.col(RISK) == settings.risk,
        pl.col(PARAMETERS) == ", ".join(settings.parameters),
        pl.col(SOLVER) == settings.solver.kind,
    )
    return rows.to_dicts() or None


def figures(run: Run[Config], balance: Balance | None) -> Iterator[Note]:
    """The figures behind these warnings, whatever they are."""
    if balance is not None:
        yield Note("select", balance_in_words(balance))
    if not run.has("influence"):
        return
    rows = fidelity_rows(run)
    if rows is None:
        yield Note("influence", "Not checked against retraining here; dealrec fidelity does that.")
    for row in rows or ():
        yield Note(
            "influence",
            f"Checked against retraining on {percent(row[SHARE])} of the units: rank correlation"
            f" {correlation(row['own'])} of at most {correlation(row['own_ceiling'])}.",
        )
