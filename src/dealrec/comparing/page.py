"""The page of a comparison: its first screen is the picture."""

from collections.abc import Sequence
from pathlib import Path

from dealrec.columns import LOSS
from dealrec.comparing.results import ArmResult, Results
from dealrec.comparing.words import amount, curve_note, interval, pays, sentence, shown
from dealrec.engine.run_directory import write_text
from dealrec.formats import difference
from dealrec.reporting.equivalents import Row, draw_equivalents
from dealrec.reporting.templates import render

REPLICATES = {
    "shared": "A replicate starts at the surrogate's seed: surrogate, signals, pool, selection and training are its"
    " own; data, warm start and test users are shared, so that what is said is true of this warm start.",
    "own": "A replicate starts at the warm start: all but data and test users is its own.",
}
NOTES = (
    "Random arms are draws of their own in each replicate. All arms of a budget take the same number of steps at one"
    " learning rate.",
    "Intervals come from resampling replicates and users; p is two-sided, over replicates, and corrected for the number"
    " of arms (Holm). Nothing is called better by p over users alone.",
    "The equivalent is read off Random's losses, linear in the logarithm of the size between those measured; its"
    " interval holds the sizes at which Random cannot be told from the arm.",
    "Validation samples are newer than those of training: training on them is what a method has to be compared with"
    " where that is allowed.",
)


def write_page(
    results: Results,
    path: Path,
    *,
    failures: dict[str, str],
    confidence: float,
    warm_starts: str,
    rates: Sequence[str] = (),
) -> None:
    """Write it at once under its name. warm_starts: as compare.warm_starts. rates: on the learning rates, in words."""
    arms = results.arms
    own = results.headline
    others = [name for name in own.differences if name != LOSS] if own else []
    content = {
        "headline": sentence(own, results) if own else "No method has selected anything.",
        "picture": draw_equivalents(
            [_row(arm) for arm in arms], [size for size, _ in results.curve], budget=own.size if own else 1
        ),
        "arms": [_cells(arm, others, list(results.segments)) for arm in arms],
        "others": others,
        "segments": list(results.segments.items()),
        "base": results.base,
        "curve": results.curve,
        "curve_note": curve_note(results),
        "confidence": confidence,
        "notes": [
            REPLICATES[warm_starts],
            *rates,
            *NOTES,
            *(f"{arm} selected nothing: {reason}" for arm, reason in failures.items()),
        ],
    }
    write_text(path, render("methods.html.jinja", content))


def _row(arm: ArmResult) -> Row:
    point, low, high = arm.equivalent.point, arm.equivalent.low, arm.equivalent.high
    verdict = arm.differences[LOSS].verdict
    return Row(
        name=shown(arm),
        worth=point.samples,
        beyond=point.bound == "above",
        low=low.samples if low else None,
        high=high.samples if high else None,
        cost=arm.size + arm.cost,
        kind=verdict if verdict in ("better", "worse") else "open",
    )


def _cells(arm: ArmResult, others: list[str], segments: list[str]) -> dict[str, object]:
    loss = arm.differences[LOSS]
    return {
        "name": shown(arm),
        "size": arm.size,
        "tokens": arm.label_tokens,
        "worth": amount(arm.equivalent.point, arm.size),
        "interval": interval(arm.equivalent, arm.size),
        "tokens_worth": amount(arm.token_equivalent.point, arm.label_tokens),
        "tokens_interval": interval(arm.token_equivalent, arm.label_tokens),
        "cost": arm.cost,
        "pays": pays(arm),
        "loss": difference(loss.mean),
        "p": _p(loss.holm),
        "verdict": loss.verdict or "one replicate: no verdict",
        "valid": "" if arm.valid is None else difference(arm.valid),
        "others": [f"{difference(arm.differences[name].mean)} ({_p(arm.differences[name].holm)})" for name in others],
        "segments": [difference(arm.segments[name].mean) if name in arm.segments else "" for name in segments],
    }


def _p(p: float | None) -> str:
    return "" if p is None else f"{p:.2g}"
