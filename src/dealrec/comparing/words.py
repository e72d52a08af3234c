"""Results in words."""

from dealrec.columns import LOSS
from dealrec.comparing.results import ArmResult, Results
from dealrec.config.arms import SELECTED
from dealrec.evaluation.equivalents import Equivalent, EquivalentInterval


def sentence(arm: ArmResult, results: Results) -> str:
    """An arm's verdict in words.

    "512 by both-loss-drops are worth 5,200 random ones [3,900, 7,100], at the cost of 1,700": what a team can act on.
    """
    text = f"{arm.size:,} by {arm.method} are worth {_worth(arm.equivalent, arm.size)} random ones"
    text += f", at the cost of {arm.cost:,.0f}" if arm.cost else ", at no cost"
    loss = arm.differences[LOSS]
    if loss.verdict is None:
        return f"{text}; one replicate gets no verdict"
    if loss.verdict != "not distinguishable":
        return f"{text}; {loss.verdict} than Random (p {loss.holm:.2g} over {results.replicates} replicates)"
    more = (
        f"{loss.to_settle} replicates would settle it" if loss.to_settle else "more replicates would hardly settle it"
    )
    return f"{text}; not distinguishable from Random ({more})"


def _worth(equivalent: EquivalentInterval, size: int) -> str:
    point, low, high = equivalent.point, equivalent.low, equivalent.high
    bounds = {end.bound for end in (point, low, high) if end is not None}
    if bounds == {"above"}:
        return f"more than {point.samples / size:.3g} times as many"
    if bounds == {"below"}:
        return f"fewer than {point.samples:,.0f}"
    return " ".join(filter(None, [amount(point, size), interval(equivalent, size)]))


def curve_note(results: Results) -> str | None:
    """What to mind of Random's curve where it does not fall: an equivalent is read off its fall."""
    (_, first), (_, last) = results.curve[0], results.curve[-1]
    if len(results.curve) < 2 or last < first:
        return None
    text = "More random samples do not lower the test loss here, so that an equivalent says no more than on which side"
    text += " of Random an arm is."
    if first > results.base:
        text += " Random is worse than no fine-tuning at all: try a lower finetune.learning_rate."
    return text


def shown(arm: ArmResult) -> str:
    """What an arm is called where people read: of the run's own its method."""
    return arm.method if arm.arm == SELECTED else arm.arm


def interval(equivalent: EquivalentInterval, size: int) -> str:
    """Its ends, as `amount` has them; empty without replicates."""
    low, high = equivalent.low, equivalent.high
    return "" if low is None or high is None else f"[{amount(low, size)}, {amount(high, size)}]"


def pays(arm: ArmResult) -> bool:
    """Whether it is worth more than its budget and the samples that its scoring would have bought."""
    return arm.equivalent.point.samples > arm.size + arm.cost and arm.equivalent.point.bound != "below"


def amount(equivalent: Equivalent, size: int) -> str:
    """In random samples, or their label tokens; outside of what was measured how it compares with its end.

    size: the arm's own, in the same unit.
    """
    if equivalent.bound == "above":
        return f"above {equivalent.samples / size:.3g}x"
    if equivalent.bound == "below":
        return f"below {equivalent.samples:,.0f}"
    return f"{equivalent.samples:,.0f}"
