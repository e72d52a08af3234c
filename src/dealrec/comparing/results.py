"""What the cells say: every arm against Random at its budget, and in random samples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isclose

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dealrec.columns import LOSS, LOWER_IS_BETTER, SEGMENT, USER
from dealrec.comparing.cells import Cell
from dealrec.comparing.measured import Arm, Measured, Values, arms_of
from dealrec.config.arms import RANDOM, SELECTED
from dealrec.evaluation.crossed import crossed_interval
from dealrec.evaluation.equivalents import (
    EquivalentInterval,
    equivalent_interval,
    holm,
    p_over_replicates,
    replicates_to_settle,
)
from dealrec.evaluation.significance import Interval


@dataclass(frozen=True)
class Difference:
    """A measure of an arm less Random's at the same budget, its interval over replicates and users, and p.

    p: two-sided over replicates; holm: the same corrected for the number of arms. verdict: better, worse, not
    distinguishable; None with one replicate. to_settle: replicates that would do, were mean and spread to stay.
    """

    mean: float
    interval: Interval
    p: float | None
    holm: float | None
    verdict: str | None
    to_settle: int | None


@dataclass(frozen=True)
class ArmResult:
    """An arm: what it came to.

    means, differences: by measure. valid: the difference in the loss of validation samples; what it has beyond that of
    the test users was fitted to them. equivalent: in random samples; token_equivalent: in label tokens of random
    samples. cost: the random samples that could have been trained on for what selecting cost. segments: by name the
    difference in loss.
    """

    arm: str
    method: str
    size: int
    label_tokens: int
    means: Mapping[str, float]
    differences: Mapping[str, Difference]
    valid: float | None
    equivalent: EquivalentInterval
    token_equivalent: EquivalentInterval
    cost: float
    segments: Mapping[str, Interval]


@dataclass(frozen=True)
class Results:
    """arms: but for Random's, by their equivalents. curve: Random's size and mean loss. segments: users in each.

    base: the mean loss without any fine-tuning.
    """

    arms: tuple[ArmResult, ...]
    base: float
    curve: tuple[tuple[int, float], ...]
    users: int
    replicates: int
    segments: Mapping[str, int]

    @property
    def headline(self) -> ArmResult | None:
        """The run's own method at its own budget; where that has selected nothing, the best."""
        return next((arm for arm in self.arms if arm.arm == SELECTED), self.arms[0] if self.arms else None)


@dataclass(frozen=True)
class Statistics:
    """Of every interval and test."""

    confidence: float
    resamples: int
    seed: int

    def interval(self, differences: Values) -> Interval:
        """Of the mean of [replicates, users]."""
        return crossed_interval(differences, confidence=self.confidence, resamples=self.resamples, seed=self.seed)


def results_of(
    cells: Sequence[Cell],
    *,
    base: Sequence[pl.DataFrame],
    measures: Sequence[str],
    costs: Mapping[str, float],
    segments: pl.DataFrame,
    statistics: Statistics,
) -> Results:
    """Compare the cells.

    base: of each replicate the users' measures without fine-tuning. measures: names; costs: of arms, in samples;
    segments: user_id, segment, a row each.
    """
    arms = arms_of(cells)
    curve, by_tokens = random_curve(arms, size=_samples), random_curve(arms, size=_label_tokens)
    pairs = [(arm, random) for arm in arms if arm.method != RANDOM for random in _beside(arm, arms)]
    measured = {name: Measured(cells, name) for name in measures}
    differences = {name: _differences(pairs, of, name, statistics) for name, of in measured.items()}
    losses = measured[LOSS]
    valid = Measured(cells, LOSS, valid=True) if all(cell.has_valid() for cell in cells) else None
    masks = {
        str(name): losses.users[USER].is_in(table[USER].implode()).to_numpy()
        for (name,), table in segments.group_by(SEGMENT, maintain_order=True)
    }
    results = [
        ArmResult(
            arm=arm.name,
            method=arm.method,
            size=arm.size,
            label_tokens=arm.label_tokens,
            means={name: float(of.of(arm.name, of.replicates(arm.name)).mean()) for name, of in measured.items()},
            differences={name: differences[name][arm.name] for name in measures},
            valid=None if valid is None else float(paired(arm, random, valid).mean()),
            equivalent=_equivalent(arm, curve, losses, statistics, size=_samples),
            token_equivalent=_equivalent(arm, by_tokens, losses, statistics, size=_label_tokens),
            cost=costs.get(arm.name, 0.0),
            segments={
                name: statistics.interval(paired(arm, random, losses, mask))
                for name, mask in masks.items()
                if mask.sum() > 1
            },
        )
        for arm, random in pairs
    ]
    return Results(
        tuple(sorted(results, key=lambda result: result.differences[LOSS].mean)),
        float(np.mean([table.join(losses.users, on=USER, how="semi")[LOSS].mean() for table in base])),
        tuple((arm.size, float(losses.of(arm.name, losses.replicates(arm.name)).mean())) for arm in curve),
        len(losses.users),
        len(losses.replicates(curve[0].name)),
        {name: int(mask.sum()) for name, mask in masks.items()},
    )


def _beside(arm: Arm, arms: Sequence[Arm]) -> list[Arm]:
    """Random's arm of the same budget, or else of as many samples; none: there is none."""
    randoms = [other for other in arms if other.method == RANDOM]
    same = [other for other in randoms if type(other.budget) is type(arm.budget) and isclose(other.budget, arm.budget)]
    return (same or [other for other in randoms if other.size == arm.size])[:1]


def random_curve(arms: Sequence[Arm], *, size: Callable[[Arm], int]) -> list[Arm]:
    """Random's arms by size, one of each."""
    by_size = {size(arm): arm for arm in reversed(arms) if arm.method == RANDOM}
    return [by_size[number] for number in sorted(by_size)]


def _samples(arm: Arm) -> int:
    return arm.size


def _label_tokens(arm: Arm) -> int:
    return arm.label_tokens


def paired(arm: Arm, random: Arm, measured: Measured, users: NDArray[np.bool_] | None = None) -> Values:
    """The arm's values less Random's, [replicates, users]. Both are draws of their own, so any pairing would do."""
    replicates = measured.replicates(arm.name, random.name)
    return measured.of(arm.name, replicates, users) - measured.of(random.name, replicates, users)


def _differences(
    pairs: Sequence[tuple[Arm, Arm]], measured: Measured, measure: str, statistics: Statistics
) -> dict[str, Difference]:
    values = {arm.name: paired(arm, random, measured) for arm, random in pairs}
    p_values = [p_over_replicates(array.mean(axis=1)) for array in values.values()]
    corrected = holm(p_values)
    of_each = 1 - (1 - statistics.confidence) / max(1, len(pairs))  # Bonferroni's: never less strict than Holm's
    return {
        name: Difference(
            mean=float(array.mean()),
            interval=statistics.interval(array),
            p=p,
            holm=adjusted,
            verdict=_verdict(float(array.mean()), adjusted, measure, confidence=statistics.confidence),
            to_settle=replicates_to_settle(array.mean(axis=1), confidence=of_each),
        )
        for (name, array), p, adjusted in zip(values.items(), p_values, corrected, strict=True)
    }


def _verdict(mean: float, p: float | None, measure: str, *, confidence: float) -> str | None:
    """By p over replicates, corrected for the number of arms: p over users alone speaks of no other selection."""
    if p is None:
        return None
    if p > 1 - confidence:
        return "not distinguishable"
    return "better" if (mean < 0) == (measure in LOWER_IS_BETTER) else "worse"


def _equivalent(
    arm: Arm, curve: Sequence[Arm], losses: Measured, statistics: Statistics, *, size: Callable[[Arm], int]
) -> EquivalentInterval:
    replicates = losses.replicates(arm.name, *(random.name for random in curve))
    return equivalent_interval(
        [size(random) for random in curve],
        np.array([losses.of(random.name, replicates) for random in curve]),
        losses.of(arm.name, replicates),
        confidence=statistics.confidence,
        resamples=statistics.resamples,
        seed=statistics.seed,
    )
