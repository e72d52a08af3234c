"""How the scores are distributed, and which of them were selected."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from markupsafe import Markup
from numpy.typing import NDArray

from dealrec.columns import (
    CANDIDATES,
    EFFORT,
    HIGH,
    INFLUENCE,
    KEPT,
    LOSS,
    LOSS_DROP,
    LOW,
    OVERALL,
    RANK,
    SAMPLE,
    STRATUM,
    SURROGATE_ERROR,
    SURROGATE_LOSS,
    SURROGATE_LOSS_DROP,
)
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


NOTES = {
    EFFORT: "The candidates of the pool. The recommender's gradient norm for each.",
    LOSS: "The candidates of the pool. The recommender's loss before fine-tuning.",
    LOSS_DROP: "The candidates of the pool. How far that loss falls when it is tuned on validation samples.",
    SURROGATE_ERROR: "All training samples. How far off the surrogate's prediction is.",
    SURROGATE_LOSS: "All training samples. The surrogate's loss at the sample's target.",
    SURROGATE_LOSS_DROP: "All training samples. How far that falls when it is tuned on validation samples.",
}


def figures(run: Run[Config], pool: pl.DataFrame | None) -> list[Figure]:
    """The signals that the run has, then the overall score of the candidates, as far as the run has come."""
    signals = [name for name in (INFLUENCE, *NOTES) if run.has(name)]
    drawn = [_signal(run, name) for name in signals]
    return [figure for figure in (*drawn, _overall(run, pool)) if figure is not None]


def _signal(run: Run[Config], name: str) -> Figure | None:
    values = run.table(f"{name}/scores.parquet")
    marked = values.head(0)
    if run.has("select"):
        marked = values.join(run.table("select/selected.parquet"), on=SAMPLE, how="semi")
    note = _of_influence(run, values[name].to_numpy()) if name == INFLUENCE else NOTES[name]
    return _figure(name, histogram(values[name].to_numpy(), marked[name].to_numpy()), summary(values[name]), note)


def _of_influence(run: Run[Config], values: NDArray[np.float64]) -> str:
    positive = percent(float((values > 0).mean())) if len(values) else "none"
    risk = {"train": "training", "valid": "validation"}[run.config.influence.risk]
    return f"All training samples. Positive for {positive}: removing one of these would raise the {risk} risk."


def _overall(run: Run[Config], pool: pl.DataFrame | None) -> Figure | None:
    if pool is None:
        return None
    if STRATUM not in pool.columns:
        marked = pool.drop_nulls(RANK)[OVERALL].to_numpy()
        note = "The candidates. What the method ranked them by."
        return _figure(OVERALL, histogram(pool[OVERALL].to_numpy(), marked), summary(pool[OVERALL]), note)
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
