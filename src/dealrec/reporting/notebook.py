"""A run at a glance: in two lines, and as what a notebook shows of it."""

from collections.abc import Iterator
from typing import Any

from dealrec.columns import HISTORY, RANK, SAMPLE, TARGET, USER
from dealrec.config import Config
from dealrec.data.catalogue import Catalogue
from dealrec.engine.run_directory import Run
from dealrec.formats import number
from dealrec.reporting.page import headline
from dealrec.reporting.results import results
from dealrec.reporting.table import HISTORY_SHOWN, score_columns
from dealrec.reporting.templates import render

SHOWN = 10


def sentences(run: Run[Config]) -> list[str]:
    """What was selected of how many, and how it compared with Random if that is known."""
    evaluation = results(run)
    return [headline(run, run.facts("data")["train_samples"]), *([evaluation.summary] if evaluation else [])]


def notebook_html(run: Run[Config]) -> str:
    """A piece of HTML without colours and scripts of its own, so that it goes with a light page and with a dark one."""
    signals = score_columns(run.table("select/selected.parquet"))[:-1] if run.has("select") else []
    rows = list(_best_samples(run))
    content = {"sentences": sentences(run), "folder": str(run.folder), "signals": signals, "rows": rows}
    return render("notebook.html.jinja", content)


def _best_samples(run: Run[Config]) -> Iterator[dict[str, Any]]:
    """The best of the selected samples; none before there is a selection."""
    if not run.has("select"):
        return
    titles = Catalogue.of(run.table("data/items.parquet")).titles
    samples = run.table("data/samples-train.parquet")
    selected = run.table("select/selected.parquet").sort(RANK).head(SHOWN)
    for row in selected.join(samples, on=SAMPLE, how="left", maintain_order="left").iter_rows(named=True):
        items = [*row[HISTORY][-HISTORY_SHOWN:], row[TARGET]]
        *history, target = (titles.get(item, str(item)) for item in items)
        yield {
            "rank": row[RANK],
            "user": str(row[USER]),
            "history": history,
            "earlier": len(row[HISTORY]) > HISTORY_SHOWN,
            "target": target,
            "scores": [number(row[name]) for name in score_columns(selected)[:-1]],
        }
