"""How the scores are distributed, and which of them were selected."""

from dataclasses import dataclass

import polars as pl
from markupsafe import Markup
from numpy.typing import ArrayLike

from dealrec.columns import CANDIDATES, EFFORT, HIGH, INFLUENCE, KEPT, LOW, OVERALL, STRATUM
from dealrec.config import Config
from dealrec.engine.run_directory import Run
from dealrec.formats import Unit, percent
from dealrec.reporting.histogram import Histogram, Summary, draw, histogram, summary


@dataclass(frozen=True)
class Figure:
    """A score: its histogram, its summary as shown, and what there is to say."""

    name: str
    exponent: int
    drawing: Markup
    n: int
    low: str
    median: str
    high: str
    note: str


def figures(run: Run[Config], pool: pl.DataFrame | None) -> list[Figure]:
    """Influence of all samples, effort and overall score of the pool, as far as the run has come."""
    drawn = [_influence(run), _effort(run), _overall(run, pool)]
    return [figure for figure in drawn if figure is not None]


def _influence(run: Run[Config]) -> Figure | None:
    if not run.has("influence"):
        return None
    values = run.table("influence/scores.parquet")[INFLUENCE].to_numpy()
    positive = percent(float((values > 0).mean())) if len(values) else "none"
    risk = {"train": "training", "valid": "validation"}[run.config.influence.risk]
    note = f"All training samples. Positive for {positive}: removing one of these would raise the {risk} risk."
    return _plain(run, INFLUENCE, values, note)


def _effort(run: Run[Config]) -> Figure | None:
    if not run.has("effort"):
        return None
    values = run.table("effort/scores.parquet")[EFFORT].to_numpy()
    return _plain(run, EFFORT, values, "The candidates of the pool. The recommender's gradient norm for each.")


def _plain(run: Run[Config], name: str, values: ArrayLike, note: str) -> Figure | None:
    marked = run.table("select/selected.parquet")[name].to_numpy() if run.has("select") else ()
    return _figure(name, histogram(values, marked), summary(values), note)


def _overall(run: Run[Config], pool: pl.DataFrame | None) -> Figure | None:
    if pool is None:
        return None
    strata = run.table("select/strata.parquet").sort(STRATUM)
    filled = strata.filter(pl.col(CANDIDATES) > 0)
    sampled = filled.filter(pl.col(KEPT) > 0)
    note = (
        f"The candidates of the pool. Each bar is one of {len(strata)} strata of equal width: {len(filled)} hold"
        f" candidates, and {len(sampled)} of these gave a sample."
    )
    low, high = float(strata[LOW][0]), float(strata[HIGH][-1])
    bars = Histogram(low, high, tuple(strata[CANDIDATES]), tuple(strata[KEPT]))
    return _figure(OVERALL, bars, summary(pool[OVERALL]), note)


def _figure(name: str, bars: Histogram | None, values: Summary | None, note: str) -> Figure | None:
    if bars is None or values is None:
        return None
    unit = Unit.of([values.low, values.high])
    ends = unit.show(bars.low), unit.show(bars.high)
    suffix = f", in units of 1e{unit.exponent}" if unit.exponent else ""
    drawing = draw(bars, name=name + suffix, ends=ends)
    low, median, high = (unit.show(value) for value in (values.low, values.median, values.high))
    return Figure(name, unit.exponent, drawing, values.n, low, median, high, note)
