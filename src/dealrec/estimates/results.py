"""What an estimate comes to, stage by stage and in all."""

from dataclasses import dataclass, field, replace
from enum import StrEnum


class Plan(StrEnum):
    """What a run would do about a stage."""

    UP_TO_DATE = "up to date"
    RESUMES = "resumes"
    RUNNING = "running"
    WILL_RUN = "will run"


@dataclass(frozen=True)
class Estimate:
    """What one stage is expected to cost; where it is up to date, what it took.

    figures: what it does, by name. seconds: None where there is no estimate, and a note says why. at_most: seconds of
    the most work that the settings allow, at the pace that was measured, where the data decide how much of it is done;
    equal to `seconds` where nothing less can be foreseen; else None. cpu_seconds: of all threads and processes.
    peak_memory_bytes: as a manifest has it. None: not known.
    """

    stage: str
    plan: Plan
    figures: dict[str, int] = field(default_factory=dict)
    seconds: float | None = None
    at_most: float | None = None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def past(self) -> bool:
        """Whether it is up to date, so that nothing of it is to come."""
        return self.plan is Plan.UP_TO_DATE


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
        """The stages that would run; what follows is of these."""
        return [stage for stage in self.stages if not stage.past]

    @property
    def seconds(self) -> float:
        """Of all that have an estimate."""
        return sum(stage.seconds or 0.0 for stage in self.to_do)

    @property
    def at_most(self) -> float | None:
        """The same with `at_most` of each stage that has it; None where none has."""
        if all(stage.at_most is None for stage in self.to_do):
            return None
        return sum((stage.seconds if stage.at_most is None else stage.at_most) or 0.0 for stage in self.to_do)

    @property
    def peak_memory_bytes(self) -> int | None:
        """The largest."""
        return max((stage.peak_memory_bytes or 0 for stage in self.to_do), default=0) or None

    def until(self, stage: str) -> "Estimates":
        """The same of a run that ends with the stage of that name, which must be among its own."""
        names = [estimate.stage for estimate in self.stages]
        return replace(self, stages=self.stages[: names.index(stage) + 1])
