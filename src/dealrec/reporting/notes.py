"""What the reader should know before trusting the numbers: the stages' warnings, and readings of their facts."""

from collections.abc import Iterator
from dataclasses import dataclass

from dealrec.columns import LOSS
from dealrec.reporting.numbers import number, percent
from dealrec.reporting.results import FEW_USERS, label
from dealrec.reporting.runs import Run

SHORT_TITLES = -0.5


@dataclass(frozen=True)
class Note:
    """A sentence about a stage."""

    stage: str
    text: str


def warnings(run: Run) -> list[Note]:
    """What may be wrong: warnings of all stages first, then what their facts give cause for."""
    said = [Note(stage, text) for stage, manifest in run.manifests.items() for text in manifest.warnings]
    left_out = [
        Note(
            stage, "The results of this stage are of other settings or of an earlier selection, and are left out here."
        )
        for stage in run.outdated
    ]
    return [*said, *left_out, *_surrogate(run), *_influence(run), *_effort(run), *_select(run), *_evaluate(run)]


def diagnostics(run: Run) -> list[Note]:
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
    return found


def _surrogate(run: Run) -> Iterator[Note]:
    facts, settings = run.facts("surrogate"), run.config.surrogate
    if not facts or facts["epochs"] < settings.max_epochs or facts.get("valid_ndcg@10") is None:
        return
    if facts["epochs"] - facts["best_epoch"] < settings.patience:
        yield Note(
            "surrogate",
            f"Training ended at surrogate.max_epochs ({settings.max_epochs}) while the validation NDCG@10 may still"
            " have been rising; influence is a statement about a surrogate that is at its optimum.",
        )


def _influence(run: Run) -> Iterator[Note]:
    facts = run.facts("influence")
    if facts and not facts["converged"]:
        yield Note(
            "influence",
            f"The solver did not converge (relative residual {number(facts['residual'])} after"
            f" {facts['iterations']:,} iterations, damping {number(facts['damping'])}): the influence scores may be"
            " in the wrong order.",
        )


def _effort(run: Run) -> Iterator[Note]:
    correlation = run.facts("effort").get("spearman_effort_completion_tokens")
    if correlation is not None and correlation < SHORT_TITLES:
        yield Note(
            "effort",
            f"Effort mostly picks short titles: its Spearman correlation with the length of the target title is"
            f" {correlation:.2f}. The gradient norm of a loss that is a mean over tokens falls with their number,"
            " whatever the LLM has to learn from them.",
        )


def _select(run: Run) -> Iterator[Note]:
    facts = run.facts("select")
    if facts and facts["budget"] < facts["strata_in_use"]:
        yield Note(
            "select",
            f"The budget of {facts['budget']:,} is below the {facts['strata_in_use']:,} strata in use, so some give"
            " no sample; a lower select.strata would cover the whole range of scores.",
        )


def _evaluate(run: Run) -> Iterator[Note]:
    if not run.has("evaluate"):
        return
    metrics = run.json("evaluate/selected/metrics.json")["metrics"]
    ranking = next((name for name in metrics if name != LOSS), None)
    few = {
        name if name == LOSS else "ranking": metrics[name]["n"]
        for name in (LOSS, ranking)
        if name in metrics and metrics[name]["n"] < FEW_USERS
    }
    if few:
        said = " and ".join(f"{label(name).lower()} over {n:,}" for name, n in few.items())
        yield Note(
            "evaluate",
            f"Few test users: {said}. With fewer than {FEW_USERS} the intervals are themselves rough, and only a"
            " large difference can show.",
        )
