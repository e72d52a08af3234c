"""The table of samples: which were kept, which were dropped and why, small enough to stand in the page."""

import html
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from dealrec.columns import (
    CANDIDATES,
    HISTORY,
    KEPT,
    OF_SURROGATE,
    OVERALL,
    RANK,
    REASON,
    SAMPLE,
    STRATUM,
    TARGET,
    USER,
)
from dealrec.config import Config
from dealrec.data.catalogue import Catalogue
from dealrec.engine.run_directory import Run
from dealrec.formats import Unit, cut, number

ROOM = 3_600_000  # bytes of the rows that the script shows: the page stays below 5 MB
STATIC_ROOM = 800_000  # bytes of text in the rows that are there without the script
STATIC_ROWS = 1_000
HISTORY_SHOWN = 3
TEXT_KEPT = 200  # characters of a title or an id
STATES = ("kept", "not selected", "dropped as one of the hardest", "not a candidate")
_REST = len(STATES) - 1
_LOWER, _OUTSIDE = -1, -2  # numbers of reasons beside those of a method


@dataclass(frozen=True)
class State:
    """What became of samples. total: of the run; shown: of those that stand in the page."""

    name: str
    total: int
    shown: int


@dataclass(frozen=True)
class Samples:
    """The table. data: what the script shows, as JSON that can stand in a script element; rows: shown without it.

    Selected samples come first, then the candidates by overall score, then the others. exponents: the powers of ten in
    which the scores are given, by name. strata: whether the method has any.
    """

    data: str
    rows: list[dict[str, Any]]
    exponents: dict[str, int]
    states: tuple[State, ...]
    strata: bool

    @property
    def total(self) -> int:
        """Training samples of the run."""
        return sum(state.total for state in self.states)

    @property
    def shown(self) -> int:
        """Samples that stand in the page."""
        return sum(state.shown for state in self.states)


@dataclass(frozen=True)
class Reason:
    """Why samples were kept or dropped. state: place in STATES."""

    state: int
    stratum: int | None
    text: str


def samples_table(
    run: Run[Config], samples: pl.DataFrame, pool: pl.DataFrame | None, *, room: int = ROOM
) -> Samples | None:
    """The table of a run; None before there is a selection. pool: the `candidates` with their scores."""
    if pool is None:
        return None
    reasons = _reasons(run, pool)
    table = _ordered(run, samples, pool, reasons)
    units = {name: Unit.of(table[name].drop_nulls()) for name in score_columns(pool)}
    titles = Catalogue.of(run.table("data/items.parquet")).titles
    data, states = _embed(_rows(table, reasons, units), titles, reasons, units, room)
    selected = table.filter(pl.col(RANK).is_not_null()).head(STATIC_ROWS)
    totals = table.select(pl.col("reason").replace_strict({r: reasons[r].state for r in reasons}))["reason"]
    counts = dict(totals.value_counts().iter_rows())
    return Samples(
        data,
        list(_static(_rows(selected, reasons, units), titles, reasons, units)),
        {name: unit.exponent for name, unit in units.items()},
        tuple(State(name, counts.get(place, 0), states[place]) for place, name in enumerate(STATES)),
        STRATUM in pool.columns,
    )


def score_columns(candidates: pl.DataFrame) -> list[str]:
    """The signals of the method, then its overall score."""
    return [name for name in candidates.columns if name not in (SAMPLE, RANK, STRATUM, REASON)]


def script_json(content: Any) -> str:
    """Compact JSON that cannot end, or comment out, the script element that it stands in.

    >>> script_json(["</script>", "<!--", 1.5, None])
    '["\\\\u003c/script>","\\\\u003c!--",1.5,null]'
    """
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _ordered(
    run: Run[Config], samples: pl.DataFrame, pool: pl.DataFrame, reasons: Mapping[int, Reason]
) -> pl.DataFrame:
    """All samples with what is known of them, and the number of the reason."""
    table = samples.join(pool, on=SAMPLE, how="left")
    for name in score_columns(pool):
        if name in OF_SURROGATE:  # which has scored all samples, the candidates or not
            table = table.drop(name).join(run.table(f"{name}/scores.parquet"), on=SAMPLE, how="left")
    kept = pl.col(RANK).is_not_null()
    if STRATUM in pool.columns:
        strata = run.config.select.strata
        number = pl.col(STRATUM) + pl.when(kept).then(0).otherwise(strata)
        hardest, outside = 2 * strata, 2 * strata + 1
    else:
        places = {reason.text: place for place, reason in reasons.items()}
        number = pl.when(kept).then(pl.col(REASON).replace_strict(places, default=None)).otherwise(_LOWER)
        number = pl.when(pl.col(OVERALL).is_not_null()).then(number)
        hardest, outside = _LOWER, _OUTSIDE
    rest = pl.when(pl.col(OVERALL).is_not_null()).then(hardest).otherwise(outside)
    table = table.with_columns(number.fill_null(rest).cast(pl.Int64).alias("reason"))
    scores = [name for name in score_columns(pool) if name in OF_SURROGATE]
    order = {RANK: False, OVERALL: True, **dict.fromkeys(scores, True), SAMPLE: False}
    return table.sort(list(order), descending=list(order.values()), nulls_last=True)


def _reasons(run: Run[Config], pool: pl.DataFrame) -> dict[int, Reason]:
    """By number: why samples were kept, why candidates were not, and those that are no candidates."""
    candidates = f"{run.facts('select')['pool']:,} candidates"
    outside = Reason(_REST, None, f"not scored: not among the {candidates}")
    if STRATUM not in pool.columns:
        texts = pool[REASON].drop_nulls().unique(maintain_order=True).to_list()
        reasons = {place: Reason(0, None, text) for place, text in enumerate(texts)}
        return reasons | {_LOWER: Reason(1, None, "others were preferred"), _OUTSIDE: outside}
    strata, reasons = run.config.select.strata, {}
    for row in run.table("select/strata.parquet").iter_rows(named=True):
        place, kept, held = row[STRATUM], row[KEPT], row[CANDIDATES]
        reasons[place] = Reason(0, place, f"stratum {place}: {kept:,} of {held:,} kept")
        reasons[place + strata] = Reason(1, place, f"not drawn: stratum {place} kept {kept:,} of {held:,}")
    reasons[2 * strata] = Reason(2, None, "dropped as one of the hardest (select.hard_prune)")
    reasons[2 * strata + 1] = outside
    return reasons


def _rows(table: pl.DataFrame, reasons: Mapping[int, Reason], units: Mapping[str, Unit]) -> Iterator[dict[str, Any]]:
    """The rows as they are read out: the last items of the history, and scores in their units."""
    places = {number: place for place, number in enumerate(reasons)}
    columns = table.with_columns(
        pl.col(HISTORY).list.tail(HISTORY_SHOWN),
        (pl.col(HISTORY).list.len().cast(pl.Int64) - HISTORY_SHOWN).clip(0).alias("earlier"),
        pl.col("reason").replace_strict(places),
        *((pl.col(name) / 10.0**unit.exponent).alias(name) for name, unit in units.items()),
    )
    return columns.iter_rows(named=True)


def _embed(
    rows: Iterator[dict[str, Any]],
    titles: Mapping[Any, str],
    reasons: Mapping[int, Reason],
    units: Mapping[str, Unit],
    room: int,
) -> tuple[str, list[int]]:
    """The rows that fit into `room` bytes, each title once, at its first use; and how many there are of each state."""
    by_place = list(reasons.values())
    places: dict[Any, int] = {}
    lines: list[str] = []
    texts: list[str] = []
    counts = [0] * len(STATES)
    for row in rows:
        new = [item for item in dict.fromkeys([*row[HISTORY], row[TARGET]]) if item not in places]
        places |= {item: len(places) + number for number, item in enumerate(new)}
        new_texts = [script_json(cut(titles.get(item, str(item)), TEXT_KEPT)) for item in new]
        line = script_json(_fields(row, places, units))
        room -= sum(len(part.encode()) + 1 for part in (line, *new_texts))
        if room < 0:
            break
        texts += new_texts
        lines.append(line)
        counts[by_place[row["reason"]].state] += 1
    legend = {
        "reasons": [[reason.state, reason.stratum, reason.text] for reason in by_place],
        "states": STATES,
        "exponents": {name: unit.exponent for name, unit in units.items()},
    }
    return f'{{"titles":[{",".join(texts)}],"rows":[{",".join(lines)}],{script_json(legend)[1:]}', counts


def _fields(row: Mapping[str, Any], places: Mapping[Any, int], scores: Iterable[str]) -> list[Any]:
    """A row of the script's table; what is missing at its end is left out."""
    exact = isinstance(row[USER], int) and abs(row[USER]) < 2**53  # as far as a script's numbers go
    fields = [
        row[SAMPLE],
        row[USER] if exact else cut(str(row[USER]), TEXT_KEPT),
        [places[item] for item in row[HISTORY]],
        row["earlier"],
        places[row[TARGET]],
        row["reason"],
        *(_brief(row[name]) for name in scores),
        row[RANK],
    ]
    while fields[-1] is None:
        fields.pop()
    return fields


def _brief(value: float | None) -> float | int | None:
    """Four significant digits."""
    if value is None:
        return None
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded == int(rounded) else rounded


def _static(
    rows: Iterator[dict[str, Any]],
    titles: Mapping[Any, str],
    reasons: Mapping[int, Reason],
    units: Mapping[str, Unit],
) -> Iterator[dict[str, Any]]:
    """The selected samples as the page shows them without the script, as many as there is room for."""
    by_place, room = list(reasons.values()), STATIC_ROOM
    for row in rows:
        texts = [cut(titles.get(item, str(item)), TEXT_KEPT) for item in (*row[HISTORY], row[TARGET])]
        user = cut(str(row[USER]), TEXT_KEPT)
        room -= sum(2 * len(html.escape(text).encode()) for text in (*texts, user))
        if room < 0:
            return
        reason = by_place[row["reason"]]
        yield {
            "rank": row[RANK],
            "sample": row[SAMPLE],
            "user": user,
            "history": texts[:-1],
            "earlier": row["earlier"],
            "target": texts[-1],
            "why": reason.text,
            "stratum": reason.stratum,
            "scores": [number(row[name]) for name in units],
        }
