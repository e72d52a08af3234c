"""What an estimate comes to, stage by stage and in all."""

from collections.abc import Iterable
from dataclasses import dataclass

from dealrec.pipeline.estimates.planning import Plan


@dataclass(frozen=True)
class Expected:
    """What a stage is expected to cost.

    figures: what it does, by name. seconds: None where there is no estimate, and a note says why. at_most: seconds,
    where the data can make it longer than `seconds`, or where `seconds` itself is only a bound: then they are equal;
    else None. added_memory: bytes besides what the process held at its peak while the piece was measured.
    """

    figures: dict[str, int]
    seconds: float | None
    at_most: float | None = None
    added_memory: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """Of one stage. seconds, at_most, figures, notes: as `Expected` has them; of an earlier run where it is up to date.

    peak_memory_bytes: of the process, resident; on a GPU of its tensors. None: not known.
    """

    stage: str
    plan: Plan
    figures: dict[str, int]
    seconds: float | None
    at_most: float | None
    peak_memory_bytes: int | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Estimates:
    """Of a run. probe_seconds: what the measuring took. device: that was measured on. warnings: of the data."""

    stages: list[Estimate]
    probe_seconds: float
    device: str
    threads: int
    warnings: tuple[str, ...]

    @property
    def to_do(self) -> list[Estimate]:
        """The stages that would run."""
        return [one for one in self.stages if one.plan is not Plan.UP_TO_DATE]

    @property
    def seconds(self) -> float:
        """Of all that would run and has an estimate."""
        return _total(one.seconds for one in self.to_do)

    @property
    def at_most(self) -> float:
        """The same, with the bound of each stage that has one."""
        return _total(one.seconds if one.at_most is None else one.at_most for one in self.to_do)

    @property
    def peak_memory_bytes(self) -> int | None:
        """The largest of those of the stages that would run."""
        return max((one.peak_memory_bytes for one in self.to_do if one.peak_memory_bytes is not None), default=None)


def _total(seconds: Iterable[float | None]) -> float:
    return sum(value for value in seconds if value is not None)
