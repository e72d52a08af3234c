"""Which stages of a run are up to date and which would run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dealrec.config import Config
from dealrec.engine.manifest import FINGERPRINT, Manifest, stage_origin
from dealrec.engine.runner import State, states
from dealrec.engine.settings import recorded
from dealrec.engine.stage import SHARDS, UNITS, Stage
from dealrec.errors import DealrecError


class Plan(StrEnum):
    """What a run would do about a stage."""

    UP_TO_DATE = "up to date"
    RESUMES = "resumes"
    RUNNING = "running"
    WILL_RUN = "will run"


@dataclass(frozen=True)
class Planned:
    """A stage with its plan.

    manifest: of what stands there now. shards: names of what a resumed stage already has. spared: it will not run after
    all where what it reads comes out as it was.
    """

    stage: Stage
    plan: Plan
    manifest: Manifest | None
    shards: frozenset[str] = frozenset()
    spared: bool = False


def planned(config: Config, run_dir: Path, stages: Sequence[Stage]) -> Iterator[Planned]:
    """Each stage with what a run would do about it.

    What a stage reads is known only while all stages before it are up to date. One after those is said to run.
    """
    complete: dict[str, Manifest] = {}
    known = True
    for stage, state, manifest in states(config, run_dir, stages):
        if state is State.COMPLETE and manifest is not None:
            complete[stage.name] = manifest
            yield Planned(stage, Plan.UP_TO_DATE, manifest)
            continue
        kept = _kept_shards(config, run_dir, stage, complete) if known else frozenset[str]()
        unchanged = manifest is not None and (manifest.version, manifest.config) == (
            stage.version,
            recorded(config, stage.settings),
        )
        spared, known = unchanged and not known, False
        plan = Plan.RUNNING if state is State.RUNNING else Plan.RESUMES if kept else Plan.WILL_RUN
        yield Planned(stage, plan, manifest, kept, spared)


def _kept_shards(config: Config, run_dir: Path, stage: Stage, complete: Mapping[str, Manifest]) -> frozenset[str]:
    """Names of the shards and units that an interrupted run that was making the same thing has left."""
    part = run_dir / f"{stage.name}.part"
    recorded_digest = part / FINGERPRINT
    if not recorded_digest.is_file():
        return frozenset()
    try:
        digest = stage_origin(stage, config, complete).digest()
    except DealrecError:  # a file of the user's that is gone
        return frozenset()
    if recorded_digest.read_text() != digest:
        return frozenset()
    folders = [folder for folder in (part / SHARDS / digest[:16], part / UNITS) if folder.is_dir()]
    names = (path.name for folder in folders for path in folder.iterdir() if path.suffix != ".tmp")
    return frozenset(name.partition("@")[0] for name in names)
