"""How the scores are distributed, and which of them were selected."""

from dataclasses import dataclass

import polars as pl
from markupsafe import Markup
from numpy.typing import ArrayLike

from dealrec.columns import EFFORT, INFLUENCE, OVERALL, STRATUM
from dealrec.reporting.histogram import Histogram, Summary, draw, histogram, summary
from dealrec.reporting.numbers import Unit, percent
from dealrec.reporting.runs import Run


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


def figures(run: Run, pool: pl.DataFrame | None) -> list[Figure]:
    """Influence of all samples, effort and overall score of the pool, as far as the run has come."""
    made = [_influence(run), _effort(run), _overall(run, pool)]
    return [figure for figure in made if figure is not None]


def _influence(run: Run) -> Figure | None:
    if not run.has("influence"):
        return None
    values = run.table("influence/scores.parquet")[INFLUENCE].to_numpy()
    positive = percent(float((values > 0).mean())) if len(values) else "none"
    over = {"train": "training", "valid": "validation"}[run.config.influence.risk]
    note = f"All training samples. Positive for {positive}: removing one of these would raise the {over} risk."
    return _plain(run, INFLUENCE, values, note)


def _effort(run: Run) -> Figure | None:
    if not run.has("effort"):
        return None
    values = run.table("effort/scores.parquet")[EFFORT]
    return _plain(
        run, EFFORT, values.to_numpy(), "The candidates of the pool. The recommender's gradient norm for each."
    )


def _plain(run: Run, name: str, values: ArrayLike, note: str) -> Figure | None:
    marked = run.table("select/selected.parquet")[name].to_numpy() if run.has("select") else ()
    return _figure(name, histogram(values, marked), summary(values), note)


def _overall(run: Run, pool: pl.DataFrame | None) -> Figure | None:
    if pool is None:
        return None
    strata = run.table("select/strata.parquet").sort(STRATUM)
    used = strata.filter(pl.col("candidates") > 0)
    kept = used.filter(pl.col("kept") > 0)
    note = (
        f"The candidates of the pool. Each bar is one of {len(strata)} strata of equal width: {len(used)} hold"
        f" candidates, and {len(kept)} of these gave a sample."
    )
    low, high = (float(end) for end in (strata["low"][0], strata["high"][-1]))
    bars = Histogram(low, high, tuple(strata["candidates"]), tuple(strata["kept"]))
    return _figure(OVERALL, bars, summary(pool[OVERALL]), note)


def _figure(name: str, bars: Histogram | None, found: Summary | None, note: str) -> Figure | None:
    if bars is None or found is None:
        return None
    unit = Unit.of([found.low, found.high])
    ends = unit.show(bars.low), unit.show(bars.high)
    suffix = f", in units of 1e{unit.exponent}" if unit.exponent else ""
    drawing = draw(bars, name=name + suffix, ends=ends)
    low, median, high = (unit.show(value) for value in (found.low, found.median, found.high))
    return Figure(name, unit.exponent, drawing, found.n, low, median, high, note)
