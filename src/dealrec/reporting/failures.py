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
from dealrec.engine.manifest import Manifest, read_manifest
from dealrec.evaluation.correlation import spearman
from dealrec.reporting.coverage import Group, Spread
from dealrec.reporting.notes import Note
from dealrec.reporting.numbers import number, percent
from dealrec.reporting.runs import Run
from dealrec.reporting.table import cut

DOMINATES = 0.8  # of the variance of the overall score
EXPECTED, MISSING = 8, 1 / 3  # least number that Random would draw of a bucket; what is too few of that
NAMED, LABEL_WIDTH = 5, 60  # categories in one warning, and characters of each
FEW_CANDIDATES = "Hardly any is a candidate: raise effort.pool."
FEW_DRAWN = (
    "Lower select.strata: the fewer strata, the more evenly the candidates are drawn from. A larger select.budget"
    " covers more, too."
)
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


def balance(pool: pl.DataFrame, *, effort_weight: float) -> Balance | None:
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


def effort_dominates(run: Run, found: Balance | None) -> Iterator[Note]:
    """A warning where the selection is one of hard samples alone."""
    if found is None or not found.effort_dominates:
        return
    weight = run.config.select.effort_weight
    at = f", e.g. to {number(found.even)}, where both have equal shares" if found.even else ""
    yield Note(
        "select",
        f"{said(found)} The selection is one of hard samples, on which the recommender overfits.",
        "Effort dominates",
        f"Lower select.effort_weight (now {weight:g}){at}; select.hard_prune drops the hardest.",
    )


def said(found: Balance) -> str:
    """The balance in words."""
    effort, influence = (_correlation(value) for value in (found.effort, found.influence))
    return (
        f"{percent(found.share)} of the variance of the overall score is due to effort; its Spearman correlation is"
        f" {effort} with effort and {influence} with influence."
    )


def uncovered(run: Run, spreads: Sequence[Spread], reach: Sequence[Group]) -> Iterator[Note]:
    """Warnings of users, items, times, categories and scores of which hardly anything was selected."""
    if not run.has("select"):
        return
    groups = {group.name: place for place, group in enumerate(reach)}
    budget = reach[groups["selected"]].samples
    for spread in spreads:
        found: dict[str, list[str]] = {}
        for bucket in spread.categories or spread.buckets:
            everyone, pool, selected = (bucket.shares[groups[name]] for name in ("all", "pool", "selected"))
            if budget * everyone < EXPECTED or selected > MISSING * everyone:
                continue
            line = (
                f"{cut(bucket.label, LABEL_WIDTH)}: {percent(everyone)} of all samples, but {percent(selected)} of the"
                f" selected ({percent(pool)} of the candidates)"
            )
            found.setdefault(FEW_CANDIDATES if pool <= MISSING * everyone else FEW_DRAWN, []).append(line)
        name = f"Uncovered: {spread.name[:1].lower()}{spread.name[1:]}"
        for remedy, lines in found.items():
            # There are few ranges, but there may be hundreds of categories.
            told = [_several(lines)] if spread.categories else lines
            yield from (Note("select", f"{spread.name}, {line}.", name, remedy) for line in told)
    yield from _empty_strata(run)


def _several(lines: Sequence[str]) -> str:
    more = f"; and {len(lines) - NAMED:,} more" if len(lines) > NAMED else ""
    return "; ".join(lines[:NAMED]) + more


def _empty_strata(run: Run) -> Iterator[Note]:
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


def influence_inaccurate(run: Run) -> Iterator[Note]:
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
    for row in checked(run) or ():
        found, high, most = row["own"], row["own_high"], row["own_ceiling"]
        if row["own_low"] > 0 and high >= OF_CEILING * most:
            continue
        yield Note(
            "influence",
            f"Influence foretold the risk after retraining with a rank correlation of {found:.2f} (interval"
            f" {row['own_low']:.2f} to {high:.2f}) where {percent(row[SHARE])} of the units are kept; noise allows"
            f" {most:.2f}.",
            "Influence inaccurate",
            "Take another influence.risk, influence.parameters or influence.solver, by the table of dealrec fidelity.",
        )


def checked(run: Run) -> list[dict[str, Any]] | None:
    """The rows of a fidelity check of these very scores that stands in the run directory; None without one."""
    check: Manifest | None = read_manifest(run.folder / "fidelity")
    trained = "model.safetensors"
    if check is None or not run.has("influence"):
        return None
    if check.inputs.get(f"surrogate/{trained}") != run.manifests["surrogate"].outputs.get(trained):
        return None
    settings = run.config.influence
    wanted = {RISK: settings.risk, PARAMETERS: ", ".join(settings.parameters), SOLVER: settings.solver.kind}
    table = run.table("fidelity/fidelity.parquet")
    rows = table.filter(*(pl.col(name) == value for name, value in wanted.items()))
    return rows.to_dicts() or None


def measured(run: Run, found: Balance | None) -> Iterator[Note]:
    """The figures behind these warnings, whatever they are."""
    if found is not None:
        yield Note("select", said(found))
    if not run.has("influence"):
        return
    rows = checked(run)
    if rows is None:
        yield Note("influence", "Not checked against retraining here; dealrec fidelity does that.")
    for row in rows or ():
        yield Note(
            "influence",
            f"Checked against retraining on {percent(row[SHARE])} of the units: rank correlation {row['own']:.2f} of at"
            f" most {row['own_ceiling']:.2f}.",
        )


def _correlation(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.2f}"
