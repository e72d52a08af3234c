"""What the reader should know before trusting the numbers: the stages' warnings, and readings of their facts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from dealrec.columns import ITEM, LOSS, TARGET, TIMESTAMP, TITLE
from dealrec.config import Config
from dealrec.data.splits import LEAK
from dealrec.engine.run_directory import Run
from dealrec.formats import correlation, listed, metric, number, percent
from dealrec.reporting.results import AS_GOOD, FEW_USERS, Results, against_random, label
from dealrec.reporting.timestamps import timestamps

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


def warnings(run: Run[Config], samples: pl.DataFrame, results: Results | None, failures: Iterable[Note]) -> list[Note]:
    """What may be wrong: with DEALRec, the data and the comparison; then whatever else the stages warned of."""
    data = [*_leak(run), *_shared_titles(run, samples)]
    stage_texts = {"Leaky split": LEAK, "Duplicate titles": SHARED_TITLE}
    repeated = [stage_texts[note.name] for note in data]
    others = [
        Note(stage, text)
        for stage, manifest in run.manifests.items()
        for text in manifest.warnings
        if not any(part in text for part in repeated)
    ]
    left_out = [
        Note(stage, f"The stage {stage} {why}, and is left out here.", LEFT_OUT, "Run it again: dealrec run.")
        for stage, why in run.outdated.items()
    ]
    readings = [*_not_better(results), *failures, *data, *_few_users(run), *_surrogate(run), *_effort(run)]
    return [*left_out, *readings, *others]


def diagnostics(run: Run[Config], more: Iterable[Note] = ()) -> list[Note]:
    """What the stages measured about themselves."""
    notes = []
    if facts := run.facts("surrogate"):
        ndcg = facts.get("valid_ndcg@10")
        ranking = f", validation NDCG@10 {metric(ndcg)}" if ndcg is not None else ""
        notes.append(Note("surrogate", f"Best epoch {facts['best_epoch']} of {facts['epochs']}{ranking}."))
    if facts := run.facts("influence"):
        state = "converged" if facts["converged"] else "did not converge"
        notes.append(
            Note(
                "influence",
                f"The solver ({facts['solver']}) {state}: relative residual {number(facts['residual'])} after"
                f" {facts['iterations']:,} iterations, with damping {number(facts['damping'])}.",
            )
        )
    if (shared := run.facts("select").get("shared_by_two_selections")) is not None:
        notes.append(Note("select", f"Two of the selections share {percent(shared)} of their samples on average."))
    if facts := run.facts("effort"):
        spearman = facts.get("spearman_effort_completion_tokens")
        value = correlation(spearman) + (", as one of the two is constant" if spearman is None else "")
        notes.append(
            Note(
                "effort",
                f"Spearman correlation of effort with the length of the target title in tokens: {value}"
                f" ({facts['pool']:,} candidates).",
            )
        )
    return [*notes, *more]


def summary(notes: Sequence[Note]) -> str:
    """The warnings in a line.

    >>> summary([Note("data", "...", "Leaky split"), Note("effort", "...")]), summary([])
    ('2 warnings: leaky split and 1 more.', 'Nothing stands out.')
    """
    if not notes:
        return "Nothing stands out."
    names = list(dict.fromkeys(f"{note.name[:1].lower()}{note.name[1:]}" for note in notes if note.name))
    unnamed = sum(not note.name for note in notes)
    more = [f"{unnamed} more"] if unnamed and names else []
    subjects = f": {listed([*names, *more])}" if names else ""
    return f"{len(notes)} warning{'s' if len(notes) > 1 else ''}{subjects}."


def _not_better(results: Results | None) -> Iterator[Note]:
    """Worse on some measure, or better on none."""
    if results is None:
        return
    better = any(verdict.outcome == "better" for verdict in results.verdicts)
    for outcome in ("worse", AS_GOOD):
        measures = [verdict.measure for verdict in results.verdicts if verdict.outcome == outcome]
        if measures and not (better and outcome == AS_GOOD):
            remedy = (
                "A smaller difference shows with more test users, or more seeds (select.selections,"
                " select.random_arms, finetune.seeds). As it is, random samples do as well and cost nothing."
                if outcome == AS_GOOD
                else "Fine-tune on random samples, or change what the scores are made of; see the warnings on them."
            )
            words = against_random(outcome)
            yield Note(
                "evaluate",
                f"{words[:1].upper()}{words[1:]} on {listed(measures)}.",
                "Worse than Random" if outcome == "worse" else "Not better than Random",
                remedy,
            )


def _leak(run: Run[Config]) -> Iterator[Note]:
    """Where times can be compared between users, the share of the training part that is of the test part's future."""
    test = "data/interactions-test.parquet"
    if run.config.data.split == "time" or not (run.folder / test).exists() or timestamps(run) != "moments":
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


def _shared_titles(run: Run[Config], samples: pl.DataFrame) -> Iterator[Note]:
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


def _surrogate(run: Run[Config]) -> Iterator[Note]:
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


def _effort(run: Run[Config]) -> Iterator[Note]:
    spearman = run.facts("effort").get("spearman_effort_completion_tokens")
    if spearman is not None and spearman < SHORT_TITLES:
        yield Note(
            "effort",
            f"Effort mostly picks short titles: its Spearman correlation with the length of the target title is"
            f" {correlation(spearman)}. The gradient norm of a loss that is a mean over tokens falls with their number,"
            " whatever the LLM has to learn from them.",
            "Effort follows title length",
            "Set effort.length_exponent to fitted.",
        )


def _few_users(run: Run[Config]) -> Iterator[Note]:
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
    measures = listed([f"{label(name).lower()} over {n:,}" for name, n in few.items()])
    facts = run.facts("data")
    users = facts.get("test_samples", 0)
    with_loss = users - facts.get("test_users_without_loss", 0)
    keys = [f"evaluate.{name}_users" for name, n in few.items() if n < (with_loss if name == LOSS else users)]
    yield Note(
        "evaluate",
        f"{measures[:1].upper()}{measures[1:]}. With fewer than {FEW_USERS} the intervals are themselves rough, and"
        " only a large difference can show.",
        "Few test users",
        f"Raise {listed(keys)}: there are {users:,} test users."
        if keys
        else "There are no more of them in this split; more seeds (finetune.seeds, select.selections) help a little.",
    )
