"""What the reader should know before trusting the numbers: the stages' warnings, and readings of their facts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from dealrec.columns import ITEM, LOSS, TARGET, TIMESTAMP, TITLE
from dealrec.data.splits import LEAK
from dealrec.reporting.numbers import number, percent
from dealrec.reporting.results import AS_GOOD, FEW_USERS, Results, label, listed
from dealrec.reporting.runs import Run, times_are

SHORT_TITLES = -0.5
SHARED_TITLE = "share their title with another item"  # as the data stage warns of it


LEFT_OUT = "Left out"


@dataclass(frozen=True)
class Note:
    """A sentence about a stage. name: what it is about, in two or three words; remedy: what to do about it."""

    stage: str
    text: str
    name: str = ""
    remedy: str = ""


def warnings(run: Run, samples: pl.DataFrame, found: Results | None, failures: Iterable[Note]) -> list[Note]:
    """What may be wrong: with DEALRec, the data and the comparison; then whatever else the stages warned of."""
    data = [*_leak(run), *_shared_titles(run, samples)]
    known = {"Leaky split": LEAK, "Duplicate titles": SHARED_TITLE}
    shown = [known[note.name] for note in data]
    others = [
        Note(stage, text)
        for stage, manifest in run.manifests.items()
        for text in manifest.warnings
        if not any(said in text for said in shown)
    ]
    left_out = [
        Note(stage, f"The stage {stage} {why}, and is left out here.", LEFT_OUT, "Run it again: dealrec run.")
        for stage, why in run.outdated.items()
    ]
    read = [*_not_better(found), *failures, *data, *_few_users(run), *_surrogate(run), *_effort(run)]
    return [*left_out, *read, *others]


def diagnostics(run: Run, more: Iterable[Note] = ()) -> list[Note]:
    """What the stages measured about themselves."""
    found = []
    if facts := run.facts("surrogate"):
        ndcg = facts.get("valid_ndcg@10")
        reached = f", validation NDCG@10 {ndcg:.4f}" if ndcg is not None else ""
        found.append(Note("surrogate", f"Best epoch {facts['best_epoch']} of {facts['epochs']}{reached}."))
    if facts := run.facts("influence"):
        state = "converged" if facts["converged"] else "did not converge"
        found.append(
            Note(
                "influence",
                f"The solver ({facts['solver']}) {state}: relative residual {number(facts['residual'])} after"
                f" {facts['iterations']:,} iterations, with damping {number(facts['damping'])}.",
            )
        )
    if (shared := run.facts("select").get("shared_by_two_selections")) is not None:
        found.append(Note("select", f"Two of the selections share {percent(shared)} of their samples on average."))
    if facts := run.facts("effort"):
        correlation = facts.get("spearman_effort_completion_tokens")
        said = f"{correlation:.2f}" if correlation is not None else "not defined, as one of the two is constant"
        found.append(
            Note(
                "effort",
                f"Spearman correlation of effort with the length of the target title in tokens: {said}"
                f" ({facts['pool']:,} candidates).",
            )
        )
    return [*found, *more]


def summary(found: Sequence[Note]) -> str:
    """The warnings in a line.

    >>> summary([Note("data", "...", "Leaky split"), Note("effort", "...")]), summary([])
    ('2 warnings: leaky split and 1 more.', 'Nothing stands out.')
    """
    if not found:
        return "Nothing stands out."
    names = list(dict.fromkeys(f"{note.name[:1].lower()}{note.name[1:]}" for note in found if note.name))
    unnamed = sum(not note.name for note in found)
    more = [f"{unnamed} more"] if unnamed and names else []
    of = f": {listed([*names, *more])}" if names else ""
    return f"{len(found)} warning{'s' if len(found) > 1 else ''}{of}."


def _not_better(found: Results | None) -> Iterator[Note]:
    """Worse on some measure, or better on none."""
    if found is None:
        return
    better = any(verdict.says == "better" for verdict in found.verdicts)
    for says in ("worse", AS_GOOD):
        measures = [verdict.measure for verdict in found.verdicts if verdict.says == says]
        if measures and not (better and says == AS_GOOD):
            remedy = (
                "A smaller difference shows with more test users, or more seeds (select.selections,"
                " select.random_arms, finetune.seeds). As it is, random samples do as well and cost nothing."
                if says == AS_GOOD
                else "Fine-tune on random samples, or change what the scores are made of; see the warnings on them."
            )
            yield Note(
                "evaluate",
                f"{says.capitalize()} {'from' if says == AS_GOOD else 'than'} Random on {listed(measures)}.",
                "Worse than Random" if says == "worse" else "Not better than Random",
                remedy,
            )


def _leak(run: Run) -> Iterator[Note]:
    """Where times can be compared between users, the share of the training part that is of the test part's future."""
    test = "data/interactions-test.parquet"
    if run.config.data.split == "time" or not (run.folder / test).exists() or times_are(run) != "moments":
        return
    first = run.table(test)[TIMESTAMP].min()
    train = run.table("data/interactions-train.parquet")[TIMESTAMP]
    later = 0.0 if first is None else len(train.filter(train > first)) / max(1, len(train))
    if later:
        yield Note(
            "data",
            f"{percent(later)} of the training interactions are later than the first test interaction: the future"
            " leaks into training, and results are comparable within this run only.",
            "Leaky split",
            "Set data.split to time, which cuts all users at one moment.",
        )


def _shared_titles(run: Run, samples: pl.DataFrame) -> Iterator[Note]:
    items = run.table("data/items.parquet")
    shared = items.filter(pl.col(TITLE).is_duplicated())
    if not len(shared):
        return
    targets = len(samples.join(shared.select(pl.col(ITEM).alias(TARGET)), on=TARGET, how="semi"))
    yield Note(
        "data",
        f"{len(shared):,} of {len(items):,} items share their title with another one, and are the targets of"
        f" {percent(targets / max(1, len(samples)))} of the samples: by its title the recommender cannot tell which is"
        " meant.",
        "Duplicate titles",
        "Put what tells them apart into the title, such as a year, an author or a brand.",
    )


def _surrogate(run: Run) -> Iterator[Note]:
    facts, settings = run.facts("surrogate"), run.config.surrogate
    if not facts or facts["epochs"] < settings.max_epochs or facts.get("valid_ndcg@10") is None:
        return
    if facts["epochs"] - facts["best_epoch"] < settings.patience:
        yield Note(
            "surrogate",
            f"Training ended at surrogate.max_epochs ({settings.max_epochs}) while the validation NDCG@10 may still"
            " have been rising; influence is a statement about a surrogate that is at its optimum.",
            "Surrogate ended early",
            "Raise surrogate.max_epochs.",
        )


def _effort(run: Run) -> Iterator[Note]:
    correlation = run.facts("effort").get("spearman_effort_completion_tokens")
    if correlation is not None and correlation < SHORT_TITLES:
        yield Note(
            "effort",
            f"Effort mostly picks short titles: its Spearman correlation with the length of the target title is"
            f" {correlation:.2f}. The gradient norm of a loss that is a mean over tokens falls with their number,"
            " whatever the LLM has to learn from them.",
            "Effort follows title length",
            "Set effort.length_exponent to fitted.",
        )


def _few_users(run: Run) -> Iterator[Note]:
    if not run.has("evaluate"):
        return
    metrics = run.json("evaluate/selected/metrics.json")["metrics"]
    ranking = next((name for name in metrics if name != LOSS), None)
    few = {
        name if name == LOSS else "ranking": metrics[name]["n"]
        for name in (LOSS, ranking)
        if name in metrics and metrics[name]["n"] < FEW_USERS
    }
    if not few:
        return
    said = " and ".join(f"{label(name).lower()} over {n:,}" for name, n in few.items())
    facts = run.facts("data")
    there = facts.get("test_samples", 0)
    with_loss = there - facts.get("test_users_without_loss", 0)
    keys = [f"evaluate.{name}_users" for name, n in few.items() if n < (with_loss if name == LOSS else there)]
    yield Note(
        "evaluate",
        f"{said[:1].upper()}{said[1:]}. With fewer than {FEW_USERS} the intervals are themselves rough, and only a"
        " large difference can show.",
        "Few test users",
        f"Raise {listed(keys)}: there are {there:,} test users."
        if keys
        else "There are no more of them in this split; more seeds (finetune.seeds, select.selections) help a little.",
    )
