"""What the evaluation says, in words and as a table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from dealrec.columns import LOG_RANK, LOSS, LOWER_IS_BETTER
from dealrec.config import Config
from dealrec.engine.run_directory import Run
from dealrec.formats import difference, listed, metric, number, percent
from dealrec.reporting.differences import Row as Bar
from dealrec.reporting.differences import draw_differences

FEW_USERS = 200
AS_GOOD = "not distinguishable"  # as `dealrec.evaluation.verdict` has it
ONE_DRAW = "one draw"  # as the comparison has it where one selection alone was trained on
OPEN = (AS_GOOD, ONE_DRAW)
ALL_EQUAL = "all equal"
NAMES = {
    LOSS: "Test loss",
    LOG_RANK: "Log-rank",
    "recall": "Recall",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "coverage": "Coverage of the catalogue",
    "popularity": "Popularity",
}


@dataclass(frozen=True)
class Verdict:
    """Selected against Random on one measure. outcome: better, worse or not distinguishable."""

    measure: str
    outcome: str
    words: str
    detail: str


@dataclass(frozen=True)
class Cell:
    """A mean, and its interval or why there is none."""

    mean: str
    interval: str


@dataclass(frozen=True)
class Row:
    """A measure: the cell of each arm, and the difference selected - random (None without random arms)."""

    measure: str
    better: str
    users: int
    cells: tuple[Cell, ...]
    difference: Cell | None


@dataclass(frozen=True)
class Results:
    """The evaluation. arms: in the order of the rows' cells. notes: what intervals and p-values cover.

    picture: the differences; None where there is no interval to draw.
    """

    confidence: str
    arms: tuple[str, ...]
    rows: tuple[Row, ...]
    verdicts: tuple[Verdict, ...]
    summary: str
    notes: tuple[str, ...]
    picture: Markup | None = None

    @property
    def settled(self) -> tuple[Verdict, ...]:
        """Those that say better or worse."""
        return tuple(verdict for verdict in self.verdicts if verdict.outcome not in OPEN)

    @property
    def unsettled(self) -> tuple[Verdict, ...]:
        """The others, which all say the same."""
        return tuple(verdict for verdict in self.verdicts if verdict.outcome in OPEN)

    @property
    def headline(self) -> str | None:
        """The verdict in a sentence; None where nothing was compared."""
        if not self.verdicts:
            return None
        if self.tone == "none":
            return "One selection against one random draw: no verdict on the method."
        return self.summary

    @property
    def tone(self) -> str:
        """The verdicts in a word: better, worse, mixed; none without any."""
        outcomes = {verdict.outcome for verdict in self.verdicts}
        if not outcomes or ONE_DRAW in outcomes:
            return "none"
        return outcomes.pop() if outcomes in ({"better"}, {"worse"}) else "mixed"


def results(run: Run[Config]) -> Results | None:
    """Read the evaluation of a run; None if it has not got there."""
    if not run.has("compare"):
        return None
    comparison = run.json("compare/comparison.json")
    arms, differences = comparison["arms"], comparison["measures"]
    metrics = {name: arm["metrics"] for name, arm in arms.items()}
    rows = [_row(name, list(metrics.values()), differences.get(name)) for name in next(iter(metrics.values()))]
    users = min((means[name]["n"] for means in metrics.values() for name in means if name != LOSS), default=0)
    rows += _catalogue_rows([arm["catalogue"] for arm in arms.values()], users, compared=bool(differences))
    verdicts = tuple(_verdict(name, metrics, estimate) for name, estimate in differences.items())
    runs = {name: len(arm["runs"]) for name, arm in arms.items()}
    names = tuple(name if n == 1 else f"{name}, mean of {n}" for name, n in runs.items())
    confidence = percent(run.config.evaluate.confidence)
    picture = _picture(metrics, differences)
    return Results(confidence, names, tuple(rows), verdicts, _summary(verdicts), tuple(comparison["notes"]), picture)


def _picture(metrics: dict[str, Any], differences: dict[str, Any]) -> Markup | None:
    rows = []
    for name, estimate in differences.items():
        ends = [estimate[end] for end in ("mean", "low", "high")]
        if None not in ends and (random := metrics["random"][name]["mean"]):
            gain, *interval_ = (value / abs(random) * (-1 if name in LOWER_IS_BETTER else 1) for value in ends)
            kind = estimate["verdict"] if estimate["verdict"] not in OPEN else "open"
            rows.append(Bar(label(name), gain, min(interval_), max(interval_), kind))
    return draw_differences(rows) if rows else None


def label(name: str) -> str:
    """A measure's name for people.

    >>> label("loss"), label("ndcg@10")
    ('Test loss', 'NDCG@10')
    """
    kind, _, k = name.partition("@")
    name = NAMES.get(kind, kind)
    return f"{name}@{k}" if k else name


def interval(estimate: dict[str, Any], show: Callable[[float], str] = metric) -> str:
    """The interval of a mean, or why there is none.

    >>> interval({"mean": 0.0, "low": None, "high": None, "n": 4}), interval({"low": -0.1, "high": 0.25, "n": 9})
    ('all equal', '-0.1000 to 0.2500')
    """
    if estimate["low"] is None or estimate["high"] is None:
        return "one user" if estimate["n"] == 1 else ALL_EQUAL
    return f"{show(estimate['low'])} to {show(estimate['high'])}"


def _cell(estimate: dict[str, Any], show: Callable[[float], str] = metric) -> Cell:
    return Cell(show(estimate["mean"]), interval(estimate, show))


def _row(name: str, arms: Sequence[dict[str, Any]], estimate: dict[str, Any] | None) -> Row:
    better = "lower is better" if name in LOWER_IS_BETTER else "higher is better"
    cells = tuple(_cell(metrics[name]) for metrics in arms)
    return Row(label(name), better, arms[0][name]["n"], cells, _cell(estimate, difference) if estimate else None)


def _catalogue_rows(arms: Sequence[dict[str, float]], users: int, *, compared: bool) -> list[Row]:
    """What is recommended to all users together: one number an arm, without an interval. compared: to Random."""
    names = [name for name in arms[0] if all(name in arm for arm in arms)]
    none = Cell("", "") if compared else None
    return [
        Row(label(name), "of all recommendations", users, tuple(Cell(metric(arm[name]), "") for arm in arms), none)
        for name in names
    ]


def _verdict(name: str, arms: dict[str, Any], estimate: dict[str, Any]) -> Verdict:
    """estimate: of the difference selected - random."""
    users = "1 user" if estimate["n"] == 1 else f"{estimate['n']:,} users"
    means = f"selected {metric(arms['selected'][name]['mean'])}, Random {metric(arms['random'][name]['mean'])}"
    mean, outcome = difference(estimate["mean"]), estimate["verdict"]
    if estimate["low"] is not None and estimate["high"] is not None:
        size = f"difference {mean} (interval {interval(estimate, difference)}) over {users}"
    elif estimate["n"] == 1:
        size = f"difference {mean} for the only user, so there is no interval"
    else:
        equal = f"differ by {mean}" if estimate["mean"] else "are equal"
        size = f"the two {equal} for each of {users}, so there is no interval"
    tests = listed([f"p ({units}) {number(test['p'])}" for units, test in estimate["p"].items() if test is not None])
    return Verdict(label(name), outcome, against_random(outcome), f"{means}; {size}; {tests}.")


def against_random(outcome: str) -> str:
    """An outcome in words.

    >>> against_random("better"), against_random(AS_GOOD), against_random(ONE_DRAW)
    ('better than Random', 'not distinguishable from Random', 'one draw: no verdict')
    """
    if outcome == ONE_DRAW:
        return "one draw: no verdict"
    return f"{outcome} {'from' if outcome == AS_GOOD else 'than'} Random"


def _summary(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return "No random selection was fine-tuned, so there is nothing to compare the selected samples with."
    if any(verdict.outcome == ONE_DRAW for verdict in verdicts):
        first = verdicts[0]
        return (
            f"One selection against one draw is no verdict on the method; dealrec compare gives one. {first.measure}"
            f" here: {first.detail}"
        )
    parts = []
    for outcome in ("better", "worse", AS_GOOD):
        names = [verdict.measure for verdict in verdicts if verdict.outcome == outcome]
        if len(names) == len(verdicts):
            names = ["any measure" if outcome == AS_GOOD else "every measure"]
        if names:
            parts.append(f"{against_random(outcome)} on {listed(names)}")
    return f"The fine-tuned model of the selected samples is {'; '.join(parts)}."
