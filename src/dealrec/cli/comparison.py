"""What the terminal shows of methods and of their comparison."""

from pathlib import Path

from rich.table import Table

from dealrec.cli.json_output import print_json
from dealrec.cli.tables import console, show_estimates, table_of
from dealrec.columns import LOSS
from dealrec.comparing.learning_rates import sentences
from dealrec.comparing.outcome import Outcome, as_json
from dealrec.comparing.run import Duration
from dealrec.comparing.words import amount, curve_note, interval, pays, sentence, shown
from dealrec.formats import difference, seconds


def show_comparison(outcome: Outcome, *, json: bool) -> None:
    """A row an arm, the best first, on one axis: random samples. Then the run's own in words, and what failed."""
    if json:
        print_json({"run_dir": str(outcome.run_dir), **as_json(outcome)})
        return
    results = outcome.results
    table = table_of(
        *("arm", ">samples", ">worth", ">interval", ">cost", "pays", ">test loss", ">p (Holm)", "than Random"),
        title=f"In random samples: {results.replicates} replicates, {results.users:,} test users",
    )
    for arm in results.arms:
        loss = arm.differences[LOSS]
        table.add_row(
            shown(arm),
            f"{arm.size:,}",
            amount(arm.equivalent.point, arm.size),
            interval(arm.equivalent, arm.size),
            f"{arm.cost:,.0f}",
            "yes" if pays(arm) else "no",
            difference(loss.mean),
            "" if loss.holm is None else f"{loss.holm:.2g}",
            loss.verdict or "one replicate: no verdict",
        )
    console().print(table)
    console().print(_curve(outcome))
    if results.headline:
        console().print(sentence(results.headline, results))
    for words in sentences(list(outcome.rates)):
        console().print(words)
    if note := curve_note(results):
        console().print(note)
    for arm_name, reason in outcome.failures.items():
        console().print(f"{arm_name} selected nothing: {reason}")
    console().print(f"Page: {outcome.page}; a row a cell: {outcome.run_dir / 'comparison.parquet'}")


def _curve(outcome: Outcome) -> Table:
    table = table_of(">random samples", ">test loss", title="Random")
    table.add_row("none", f"{outcome.results.base:.4f}")
    for size, loss in outcome.results.curve:
        table.add_row(f"{size:,}", f"{loss:.4f}")
    return table


def show_duration(duration: Duration, run_dir: Path, *, as_json: bool) -> None:
    """What a comparison would take: the stages of its first replicate, then all."""
    first, *others = duration.replicates
    if as_json:
        print_json({"run_dir": str(run_dir), "replicates": len(others) + 1, "seconds": duration.seconds})
        return
    show_estimates(first, run_dir / "replicate-0", as_json=False)
    rest = sum(estimates.seconds for estimates in others)
    more = f" The other {len(others)} replicates: {seconds(rest)} of work." if others else ""
    console().print(f"This is the first replicate.{more} In all: about {seconds(duration.seconds)}.", soft_wrap=True)


def show_methods(*, as_json: bool) -> None:
    """Every method with its signals, options and paper."""
    from dealrec.selection.methods import METHODS

    if as_json:
        rows = [
            {
                "name": method.name,
                "signals": list(method.signals),
                "options": dict(method.options),
                "summary": method.summary,
            }
            for method in METHODS.values()
        ]
        print_json(rows)
        return
    table = table_of("method", "signals", "options", "what it is")
    for method in METHODS.values():
        options = ", ".join(f"{name}={value}" for name, value in method.options.items())
        table.add_row(method.name, ", ".join(method.signals), options, method.summary)
    console().print(table)
    console().print("One of your own is a Python file: select.method: my_method.py (docs/guides/baseline.md).")
