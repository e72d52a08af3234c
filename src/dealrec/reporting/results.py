"""What the evaluation says, in words and as a table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dealrec.columns import LOSS
from dealrec.reporting.numbers import difference, metric, number, percent
from dealrec.reporting.runs import Run

FEW_USERS = 200
AS_GOOD = "not distinguishable"  # as `dealrec.evaluation.verdict` has it
ALL_EQUAL = "all equal"
NAMES = {
    LOSS: "Test loss",
    "recall": "Recall",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "coverage": "Coverage of the catalogue",
    "popularity": "Popularity",
}


@dataclass(frozen=True)
class Verdict:
    """Selected against Random on one measure."""

    measure: str
    says: str
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
    """The evaluation. arms: in the order of the rows' cells. notes: what intervals and p-values cover."""

    confidence: str
    arms: tuple[str, ...]
    rows: tuple[Row, ...]
    verdicts: tuple[Verdict, ...]
    summary: str
    notes: tuple[str, ...]

    @property
    def tone(self) -> str:
        """The verdicts in a word: better, worse, mixed; none without any."""
        said = {verdict.says for verdict in self.verdicts}
        return "none" if not said else said.pop() if said in ({"better"}, {"worse"}) else "mixed"


def results(run: Run) -> Results | None:
    """Read the evaluation of a run; None if it has not got there."""
    if not run.has("compare"):
        return None
    comparison = run.json("compare/comparison.json")
    arms = {arm: one["metrics"] for arm, one in comparison["arms"].items()}
    measured = comparison["measures"]
    rows = [_row(name, list(arms.values()), measured.get(name)) for name in next(iter(arms.values()))]
    users = min((metrics[name]["n"] for metrics in arms.values() for name in metrics if name != LOSS), default=0)
    catalogues = [one["catalogue"] for one in comparison["arms"].values()]
    rows += _catalogue_rows(catalogues, users, compared=bool(measured))
    verdicts = tuple(_verdict(name, arms, found) for name, found in measured.items())
    names = tuple(_named(arm, len(one["runs"])) for arm, one in comparison["arms"].items())
    confidence = percent(run.config.evaluate.confidence)
    return Results(confidence, names, tuple(rows), verdicts, _summary(verdicts), tuple(comparison["notes"]))


def label(name: str) -> str:
    """A measure's name for people.

    >>> label("loss"), label("ndcg@10")
    ('Test loss', 'NDCG@10')
    """
    kind, _, k = name.partition("@")
    known = NAMES.get(kind, kind)
    return f"{known}@{k}" if k else known


def listed(names: Sequence[str]) -> str:
    """Join names as a sentence does.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def interval(found: dict[str, Any], show: Callable[[float], str] = metric) -> str:
    """The interval of a mean, or why there is none.

    >>> interval({"mean": 0.0, "low": None, "high": None, "n": 4}), interval({"low": -0.1, "high": 0.25, "n": 9})
    ('all equal', '-0.1000 to 0.2500')
    """
    if found["low"] is None or found["high"] is None:
        return "one user" if found["n"] == 1 else ALL_EQUAL
    return f"{show(found['low'])} to {show(found['high'])}"


def _named(arm: str, runs: int) -> str:
    return arm if runs == 1 else f"{arm}, mean of {runs}"


def _cell(found: dict[str, Any], show: Callable[[float], str] = metric) -> Cell:
    return Cell(show(found["mean"]), interval(found, show))


def _row(name: str, arms: Sequence[dict[str, Any]], found: dict[str, Any] | None) -> Row:
    better = "lower is better" if name == LOSS else "higher is better"
    cells = tuple(_cell(metrics[name]) for metrics in arms)
    return Row(label(name), better, arms[0][name]["n"], cells, _cell(found, difference) if found else None)


def _catalogue_rows(arms: Sequence[dict[str, float]], users: int, *, compared: bool) -> list[Row]:
    """What is recommended to all users together: one number an arm, without an interval. compared: to Random."""
    names = [name for name in arms[0] if all(name in arm for arm in arms)]
    none = Cell("", "") if compared else None
    return [
        Row(label(name), "of all recommendations", users, tuple(Cell(metric(arm[name]), "") for arm in arms), none)
        for name in names
    ]


def _verdict(name: str, arms: dict[str, Any], found: dict[str, Any]) -> Verdict:
    users = "1 user" if found["n"] == 1 else f"{found['n']:,} users"
    means = f"selected {metric(arms['selected'][name]['mean'])}, Random {metric(arms['random'][name]['mean'])}"
    mean = difference(found["mean"])
    if found["low"] is not None and found["high"] is not None:
        said = f"difference {mean} (interval {interval(found, difference)}) over {users}"
    elif found["n"] == 1:
        said = f"difference {mean} for the only user, so there is no interval"
    else:
        same = f"differ by {mean}" if found["mean"] else "are equal"
        said = f"the two {same} for each of {users}, so there is no interval"
    tests = listed([f"p ({of}) {number(test['p'])}" for of, test in found["p"].items() if test is not None])
    than = "from" if found["verdict"] == AS_GOOD else "than"
    return Verdict(label(name), found["verdict"], f"{found['verdict']} {than} Random", f"{means}; {said}; {tests}.")


def _summary(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return "No random selection was fine-tuned, so there is nothing to compare the selected samples with."
    parts = []
    for says in ("better", "worse", AS_GOOD):
        names = [verdict.measure for verdict in verdicts if verdict.says == says]
        if len(names) == len(verdicts):
            names = ["any measure" if says == AS_GOOD else "every measure"]
        if names:
            parts.append(f"{says} {'from' if says == AS_GOOD else 'than'} Random on {listed(names)}")
    return f"The fine-tuned model of the selected samples is {'; '.join(parts)}."
