"""Which stages of a run are up to date and which would run."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dealrec.config import Config
from dealrec.engine.manifest import Manifest, intact_units, stage_origin
from dealrec.engine.runner import State, states
from dealrec.engine.stage import SHARDS, UNITS, Silent
from dealrec.errors import DealrecError
from dealrec.estimates.scales import OF_ARMS
from dealrec.stages.context import Context, Stage


class Plan(StrEnum):
    """What a run would do about a stage."""

    UP_TO_DATE = "up to date"
    RESUMES = "resumes"
    RUNNING = "running"
    WILL_RUN = "will run"


@dataclass(frozen=True)
class Planned:
    """A stage with its plan. manifest: where it is up to date. finished: names of the units or shards that it has."""

    stage: Stage
    plan: Plan
    manifest: Manifest | None = None
    finished: frozenset[str] = frozenset()


def planned(config: Config, run_dir: Path, stages: Sequence[Stage]) -> Iterator[Planned]:
    """Each stage with what a run would do about it.

    What a stage reads is known only while all stages before it are up to date. One after those is said to run.
    """
    complete: dict[str, Manifest] = {}
    for stage, state, manifest in states(config, run_dir, stages):
        if state is State.COMPLETE and manifest is not None:
            complete[stage.name] = manifest
            yield Planned(stage, Plan.UP_TO_DATE, manifest)
            continue
        first = stage is stages[len(complete)]
        finished = _finished(config, run_dir, stage, complete) if first else frozenset[str]()
        plan = Plan.RUNNING if state is State.RUNNING else Plan.RESUMES if finished else Plan.WILL_RUN
        yield Planned(stage, plan, finished=finished)


def _finished(config: Config, run_dir: Path, stage: Stage, complete: Mapping[str, Manifest]) -> frozenset[str]:
    """Names of what need not be done again: shards of an interrupted run that was making the same, and units."""
    try:
        origin = stage_origin(stage, config, complete)
    except DealrecError:  # a file of the user's that is gone
        return frozenset()
    if stage.name not in OF_ARMS:
        shards = (run_dir / f"{stage.name}.part" / SHARDS / origin.digest()[:16]).glob("*")
        return frozenset(path.name for path in shards if path.suffix != ".tmp")
    with TemporaryDirectory(prefix="dealrec-") as out:  # whatever the stage writes, nothing gets into the run
        earlier, _ = intact_units(run_dir / stage.name)
        query = _UnitQuery(stage.name, config, Silent(), run_dir, Path(out), stage.inputs, origin, earlier)
        stage.run(query)
    return frozenset(query.units)


class _UnitQuery(Context):
    """Has a stage say which units it wants, and fills none; `units` are those that are there."""

    def unit(
        self,
        name: str,
        fill: Callable[[Path], None],  # noqa: ARG002
        *,
        without: Collection[str] = (),
        inputs: Collection[str] | None = None,
        given: Any = None,
    ) -> Path:
        """Look for the unit."""
        if self.origin is None:
            raise ValueError("without an origin no unit can be told from another")
        key = self.origin.part(name, without=without, inputs=self.inputs if inputs is None else inputs, given=given)
        folder = self.run_dir / f"{self.name}.part" / UNITS / f"{name}@{key[:16]}"
        if self.earlier.get(name) == key or folder.exists():
            self.units[name] = key
        return self.out / name
