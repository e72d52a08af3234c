"""Two runs side by side: the settings that differ, what both select, coverage, results and cost."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from dealrec.columns import HISTORY, OF_SURROGATE, SAMPLE, TARGET, USER
from dealrec.config import Config
from dealrec.engine.run_directory import Run, write_text
from dealrec.errors import RunDirectoryError
from dealrec.evaluation.correlation import spearman
from dealrec.reporting import costs, coverage, results
from dealrec.reporting.results import Cell, Results
from dealrec.reporting.table import score_columns
from dealrec.reporting.templates import render

ABSENT = "not there"
_SAMPLES = "samples-train.parquet"


@dataclass(frozen=True)
class Overlap:
    """What two runs select: of either, both, and the number that chance alone would make both."""

    first: int
    second: int
    both: int
    by_chance: float

    @property
    def jaccard(self) -> float:
        """Share of what either selects that both select.

        >>> Overlap(3, 2, 1, 0.5).jaccard
        0.25
        """
        either = self.first + self.second - self.both
        return self.both / either if either else 0.0


@dataclass(frozen=True)
class Correlation:
    """Rank correlation of a score over the n samples that both runs have scored; None where it is not defined."""

    score: str
    n: int
    spearman: float | None


@dataclass(frozen=True)
class Pair:
    """Two runs, by name, and their training samples."""

    names: tuple[str, str]
    runs: tuple[Run[Config], Run[Config]]
    samples: tuple[pl.DataFrame, pl.DataFrame]
    matched: pl.DataFrame  # sample_id of the first run, other: of the second
    same_samples: bool


def write_comparison(first: Run[Config], second: Run[Config], path: Path | None = None) -> dict[str, Any]:
    """Write a page on two runs, by default into the folder of the first; return its path and its main figures.

    Raises RunDirectoryError for a run without a selection of its settings.
    """
    pair = matched_pair(first, second)
    page = content(pair)
    target = path or first.folder / f"compared-with-{second.folder.resolve().name}.html"
    write_text(target, render("comparison.html.jinja", page))
    shared: Overlap = page["overlap"]
    return {
        "page": str(target),
        "runs": list(pair.names),
        "selected": [shared.first, shared.second],
        "in_both": shared.both,
        "in_both_by_chance": shared.by_chance,
        "jaccard": shared.jaccard,
        "spearman": {row.score: {"n": row.n, "value": row.spearman} for row in page["correlations"]},
        "settings": {name: list(values) for name, *values in page["settings"]},
    }


def matched_pair(first: Run[Config], second: Run[Config]) -> Pair:
    """Match the samples of two runs. Raises RunDirectoryError for a run without a selection of its settings."""
    runs = (first, second)
    for run in runs:
        if not run.has("select"):
            reason = f" (what stands there {run.outdated['select']})" if "select" in run.outdated else ""
            raise RunDirectoryError(
                f"{run.folder} holds no selection to compare{reason}",
                "Run it: dealrec run CONFIG --run-dir DIR --until select",
            )
    names = (first.folder.resolve().name, second.folder.resolve().name)
    if names[0] == names[1]:
        names = (str(first.folder), str(second.folder))
    samples = (first.table(f"data/{_SAMPLES}"), second.table(f"data/{_SAMPLES}"))
    same_samples = len({run.manifests["data"].outputs.get(_SAMPLES) for run in runs}) == 1
    identity = samples[0].select(SAMPLE, pl.col(SAMPLE).alias("other"))
    return Pair(names, runs, samples, identity if same_samples else match(*samples), same_samples)


def match(first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
    """sample_id of the first run and `other`, of the second: samples of one user, history and target."""
    key = pl.concat_str(
        *(pl.col(name).cast(pl.String) for name in (USER, TARGET)),
        pl.col(HISTORY).cast(pl.List(pl.String)).list.join("\x1f"),
        separator="\x1e",
    ).alias("key")
    left, right = (table.select(SAMPLE, key).unique("key", keep="first") for table in (first, second))
    return left.join(right.rename({SAMPLE: "other"}), on="key").select(SAMPLE, "other").sort(SAMPLE)


def content(pair: Pair) -> dict[str, Any]:
    """Everything that the template shows."""
    shared = overlap(pair)
    evaluations = tuple(results.results(run) for run in pair.runs)
    walls = [{line.stage: line.wall for line in costs.lines(run)} for run in pair.runs]
    stages = sorted(dict.fromkeys([*walls[0], *walls[1]]), key=lambda name: name == "all")
    first, second = pair.names
    return {
        "names": pair.names,
        "headline": (
            f"{first} and {second} have {shared.both:,} samples in common of the {shared.first:,} and {shared.second:,}"
            f" that they select."
        ),
        "overlap": shared,
        "chance": f"{shared.by_chance:,.{0 if shared.by_chance >= 10 else 1}f}",
        "same_samples": pair.same_samples,
        "shared": len(pair.matched),
        "settings": settings(pair),
        "correlations": list(correlations(pair)),
        "summaries": [evaluation.summary if evaluation else "Nothing is evaluated." for evaluation in evaluations],
        "results": list(measures(evaluations)),
        "costs": [(stage, [wall.get(stage, ABSENT) for wall in walls]) for stage in stages],
        **_coverage(pair),
    }


def settings(pair: Pair) -> list[tuple[str, str, str]]:
    """Name and both values of each setting that differs."""
    first, second = (dict(_flat(run.config.model_dump(mode="json"))) for run in pair.runs)
    names = dict.fromkeys([*first, *second])
    rows = ((name, _text(first, name), _text(second, name)) for name in names)
    return [(name, left, right) for name, left, right in rows if left != right]


def overlap(pair: Pair) -> Overlap:
    """How many samples both select, and how many random selections of these sizes would have in common."""
    first, second = (run.table("select/selected.parquet").select(SAMPLE) for run in pair.runs)
    both = pair.matched.join(first, on=SAMPLE).join(second.rename({SAMPLE: "other"}), on="other")
    sizes = [len(table) for table in pair.samples]
    chance = len(pair.matched) * (len(first) / sizes[0]) * (len(second) / sizes[1])
    return Overlap(len(first), len(second), len(both), chance)


def correlations(pair: Pair) -> Iterator[Correlation]:
    """Of the surrogate's signals over all samples that both have, of other scores over the candidates of both."""
    pools = [run.table("select/candidates.parquet") for run in pair.runs]
    for name in (name for name in score_columns(pools[0]) if name in pools[1].columns):
        everything = name in OF_SURROGATE
        left, right = [run.table(f"{name}/scores.parquet") for run in pair.runs] if everything else pools
        other = right.select(pl.col(SAMPLE).alias("other"), pl.col(name).alias("theirs"))
        table = pair.matched.join(left.select(SAMPLE, name), on=SAMPLE).join(other, on="other")
        value = spearman(table[name], table["theirs"]) if len(table) > 1 else None
        yield Correlation(name, len(table), value)


def measures(evaluations: tuple[Results | None, ...]) -> Iterator[tuple[str, list[Cell]]]:
    """Of each measure, for each run: the selected arm's mean, and the difference from Random with its verdict."""
    tables = [{row.measure: row for row in evaluation.rows} if evaluation else {} for evaluation in evaluations]
    verdicts = [
        {verdict.measure: verdict.words for verdict in evaluation.verdicts} if evaluation else {}
        for evaluation in evaluations
    ]
    for name in dict.fromkeys(measure for rows in tables for measure in rows):
        cells = []
        for rows, words in zip(tables, verdicts, strict=True):
            row = rows.get(name)
            cells.append(row.cells[1] if row else Cell("", ABSENT))
            difference = row.difference if row and row.difference and row.difference.mean else Cell("", "")
            cells.append(Cell(difference.mean, f"{difference.interval}; {words[name]}" if name in words else ""))
        yield name, cells


def _coverage(pair: Pair) -> dict[str, Any]:
    """Of one set of samples how either selection spreads over it; of different ones what either touches."""
    selected = [
        table.join(run.table("select/selected.parquet"), on=SAMPLE, how="semi")
        for run, table in zip(pair.runs, pair.samples, strict=True)
    ]
    groups = {"all": pair.samples[0]}
    if not pair.same_samples:
        groups = {f"all of {name}": table for name, table in zip(pair.names, pair.samples, strict=True)}
    groups |= {f"selected by {name}": table for name, table in zip(pair.names, selected, strict=True)}
    spreads = coverage.spreads(pair.runs[0], groups) if pair.same_samples else []
    return {"reach": coverage.reach(groups), "spreads": spreads, "marked": list(groups)[-2:]}


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _text(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return ABSENT
    return values[name] if isinstance(values[name], str) else json.dumps(values[name], ensure_ascii=False)
