"""Runs the stages: skips what is up to date, resumes what was interrupted, publishes what is complete.

A stage writes to `NAME.part`, its manifest last; then the folder is renamed to `NAME`. A folder with its
final name is complete. What stood there before is kept until then.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from dealrec.devices import reproducible
from dealrec.engine.faults import LESS_MEMORY, no_memory, no_space
from dealrec.engine.hashes import file_hash
from dealrec.engine.leftovers import drop_damaged
from dealrec.engine.manifest import (
    FINGERPRINT,
    FORMAT,
    MANIFEST,
    Manifest,
    checked_manifest,
    damage_line,
    intact_units,
    library_versions,
    output_files,
    read_manifest,
    refuse_other_format,
    stage_origin,
    thread_count,
    write_manifest,
)
from dealrec.engine.measure import Meter
from dealrec.engine.settings import Settings, recorded
from dealrec.engine.stage import MACHINE, OUTSIDE, SHARDS, UNITS, Context, Origin, Progress, SettingsT, Stage
from dealrec.errors import DealrecError, RunDirectoryError

LOCK = ".dealrec.lock"  # also marks a directory as a run's
CONFIG = "config.json"


class State(StrEnum):
    """Of a stage in a run directory."""

    COMPLETE = "complete"
    OUTDATED = "out of date"
    DAMAGED = "damaged"
    RUNNING = "running"
    PARTIAL = "unfinished"
    MISSING = "not run"


@dataclass(frozen=True)
class Outcome:
    """What `run` did about a stage. manifest: of its folder as it is now."""

    stage: str
    ran: bool
    manifest: Manifest


def run(config: Settings, run_dir: Path, stages: Sequence[Stage], *, progress: Progress) -> list[Outcome]:
    """Bring `stages` up to date in `run_dir`, in their order, which is that of their dependence.

    Raises DealrecError for what the user can mend; results that are complete stay as they are.
    """
    with opened(run_dir):
        return run_opened(config, run_dir, stages, progress=progress)


def run_opened(config: Settings, run_dir: Path, stages: Sequence[Stage], *, progress: Progress) -> list[Outcome]:
    """`run` in a directory that the caller has `opened`, and holds until it is left."""
    complete: dict[str, Manifest] = {}
    outcomes: list[Outcome] = []
    for stage in stages:
        _restore(run_dir, stage.name)
        _refuse_foreign(run_dir / stage.name)
        origin = stage_origin(stage, config, complete)
        manifest, damage = checked_manifest(run_dir / stage.name)
        if damage:
            progress.say(f"warning: {damage_line(run_dir / stage.name, damage)}; made again")
        ran = manifest is None or manifest.fingerprint != origin.digest()
        if manifest is None or ran:
            manifest = _execute(stage, config, run_dir, origin, progress)
        stage.after(config, run_dir)
        if not outcomes:  # settings that were refused are not those of the results that stand
            _write_config(run_dir, config)
        complete[stage.name] = manifest
        outcomes.append(Outcome(stage.name, ran, manifest))
    return outcomes


def _execute(stage: Stage, config: Settings, run_dir: Path, origin: Origin, progress: Progress) -> Manifest:
    part, fingerprint, config = run_dir / f"{stage.name}.part", origin.digest(), stage.view(config)
    manifest = read_manifest(part)
    if manifest is None or manifest.fingerprint != fingerprint:
        _prepare(part, fingerprint, progress)
        outside = [str(dependency) for dependency in stage.outside(config)]  # now, as the origin was taken
        progress.say(f"{stage.name} ...")
        earlier, costs = intact_units(run_dir / stage.name)
        context = Context(
            stage.name, config, progress, run_dir, part, stage.inputs, origin, earlier, earlier_costs=costs
        )
        meter = Meter()
        _run_stage(stage, context)
        device = str(context.facts.pop("device", "cpu"))
        cost = meter.read(device=device)
        wall, cpu = (sum(context.unit_costs[name][place] for name in context.carried) for place in (0, 1))
        files = output_files(part)
        names = [path.relative_to(part).as_posix() for path in files]
        manifest = Manifest(
            stage=stage.name,
            version=stage.version,
            format=FORMAT,
            fingerprint=fingerprint,
            config=recorded(config, stage.settings),
            inputs=dict(origin.hashes),
            outside=outside,
            outputs=dict(zip(names, map(file_hash, files), strict=True)),
            sizes={name: path.stat().st_size for name, path in zip(names, files, strict=True)},
            units=context.units,
            unit_costs=context.unit_costs,
            seed=config.seed,
            libraries=library_versions(),
            device=device,
            threads=thread_count(),
            wall_seconds=round(cost.wall_seconds + wall, 3),
            cpu_seconds=round(cost.cpu_seconds + cpu, 3),
            peak_memory_bytes=cost.peak_memory_bytes,
            facts=context.facts,
            warnings=context.warnings,
        )
        write_manifest(part, manifest)
    _publish(run_dir, stage.name)
    return manifest


def _run_stage(stage: Stage, context: Context) -> None:
    try:
        with reproducible():
            stage.run(context)
    except DealrecError:
        raise
    except Exception as error:  # whichever library has found no memory
        if (reason := no_memory(error)) is None:
            raise
        raise DealrecError(f"{stage.name}: {reason}", f"{LESS_MEMORY}: what is finished is kept.") from error


def _prepare(part: Path, fingerprint: str, progress: Progress) -> None:
    """Leave nothing in the folder but what runs that were interrupted have finished, each by what it was made from."""
    part.mkdir(exist_ok=True)
    for leftover in part.iterdir():
        if leftover.name in (SHARDS, UNITS):
            continue
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    for damaged in drop_damaged(part):
        progress.say(f"warning: {damaged} is damaged: it is not as it was written; made again")
    staging = part / f"{FINGERPRINT}.tmp"
    staging.write_text(fingerprint)
    staging.rename(part / FINGERPRINT)


def _publish(run_dir: Path, name: str) -> None:
    """Put a complete folder under its name; what it was put together from is dropped only now."""
    final, old, part = (run_dir / f"{name}{suffix}" for suffix in ("", ".old", ".part"))
    if final.exists():
        final.rename(old)
    part.rename(final)
    for leftover in (old, final / SHARDS, final / UNITS):
        shutil.rmtree(leftover, ignore_errors=True)


def _restore(run_dir: Path, name: str) -> None:
    """Undo or finish a `_publish` that was killed between its steps."""
    final, old = run_dir / name, run_dir / f"{name}.old"
    if old.exists():
        if final.exists():
            shutil.rmtree(old)
        else:
            old.rename(final)


def states(
    config: Settings, run_dir: Path, stages: Sequence[Stage], *, anywhere: bool = False
) -> Iterator[tuple[Stage, State, Manifest | None]]:
    """State of each stage under `config`. A stage after one that is not complete is out of date at best.

    anywhere: whatever machine has computed it, for those who read; a run goes on with what its own machine made.
    """
    complete: dict[str, Manifest] = {}
    broken, at_work = False, _at_work(run_dir)
    for stage in stages:
        refuse_other_format(run_dir / stage.name)
        manifest, damage = checked_manifest(run_dir / stage.name)
        if manifest is not None and not broken:
            broken = not _current(stage, config, complete, manifest, anywhere=anywhere)
        begun = (run_dir / f"{stage.name}.part" / FINGERPRINT).exists()
        running = begun and stage.name == at_work
        if manifest is None:
            state = State.RUNNING if running else State.PARTIAL if begun else State.MISSING
            state = State.DAMAGED if damage and not begun else state
            broken = True
        else:
            state = State.RUNNING if running else State.OUTDATED if broken else State.COMPLETE
            complete[stage.name] = manifest
        yield stage, state, manifest


def _current(
    stage: Stage, config: Settings, complete: Mapping[str, Manifest], manifest: Manifest, *, anywhere: bool
) -> bool:
    elsewhere = {MACHINE}
    if anywhere and not all(Path(name).is_absolute() for name in manifest.outside):
        elsewhere.add(OUTSIDE)  # a model of a hub, which is not asked for the sake of reading
        stage = replace(stage, outside=lambda _config: ())
    try:
        origin = stage_origin(stage, config, complete)
    except DealrecError:  # a file of the user's that is gone
        return False
    if anywhere:
        there = {key: value for key, value in manifest.inputs.items() if key.partition("/")[0] in elsewhere}
        here = {key: value for key, value in origin.hashes.items() if key.partition("/")[0] not in elsewhere}
        origin = replace(origin, hashes=here | there)
    return manifest.fingerprint == origin.digest()


def recorded_config(run_dir: Path, kind: type[SettingsT]) -> SettingsT:
    """The settings of the last run in `run_dir`. Raises RunDirectoryError where there was none that can be read."""
    try:
        return kind.model_validate_json((run_dir / CONFIG).read_bytes())
    except ValidationError as error:
        cut = error.errors()[0]["type"] == "json_invalid"
        fault = "is damaged: it is no JSON" if cut else "holds settings that this version of dealrec does not know"
        raise RunDirectoryError(
            f"{run_dir / CONFIG} {fault}",
            "Run it again with a config of this version: dealrec run CONFIG --run-dir DIR",
        ) from None
    except OSError:
        raise RunDirectoryError(
            f"{run_dir} is not a run directory", "Make one with: dealrec run CONFIG --run-dir DIR"
        ) from None


def _write_config(run_dir: Path, config: Settings) -> None:
    staging = run_dir / f"{CONFIG}.tmp"
    staging.write_text(config.model_dump_json(indent=2) + "\n")
    staging.rename(run_dir / CONFIG)


@contextmanager
def opened(run_dir: Path) -> Iterator[None]:
    """Make and hold the run directory. Raises RunDirectoryError if it is in use, not a run's, or not writable."""
    with _writable(run_dir), _locked(run_dir):
        yield


def refuse_foreign_directory(run_dir: Path) -> None:
    """Raise RunDirectoryError for a directory with files that are not of a run, and for a file."""
    if run_dir.is_file():
        raise RunDirectoryError(f"{run_dir} is no directory", "Choose another --run-dir.")
    if run_dir.is_dir() and any(run_dir.iterdir()) and not (run_dir / LOCK).exists():
        raise RunDirectoryError(
            f"{run_dir} holds files that are not of a run", "Choose an empty or a new directory for --run-dir."
        )


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not (folder / MANIFEST).exists():
        raise RunDirectoryError(f"{folder} is not of a run", "Move it away, or choose another --run-dir.")
    refuse_other_format(folder)


@contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    """Hold the run directory; the lock goes with the process, however that ends."""
    lock = FileLock(run_dir / LOCK)
    try:
        with lock.acquire(blocking=False):
            yield
    except Timeout:
        raise RunDirectoryError(
            f"The run directory {run_dir} is in use by another process", "Wait for it, or choose another --run-dir."
        ) from None


def _at_work(run_dir: Path) -> str | None:
    """The stage that a process is at, which is the last that was begun; others were interrupted."""
    if not (run_dir / LOCK).exists():  # or asking for it would make it, and the folder
        return None
    try:
        with FileLock(run_dir / LOCK).acquire(blocking=False):
            return None
    except Timeout:
        begun: dict[str, int] = {}
        for part in run_dir.iterdir():
            with suppress(FileNotFoundError, NotADirectoryError):  # complete by now
                if part.suffix == ".part":
                    begun[part.stem] = (part / FINGERPRINT).stat().st_mtime_ns
        return max(begun, key=begun.__getitem__, default=None)
    except OSError:  # a directory that cannot be written: nobody is at work in it who could be told from here
        return None


@contextmanager
def _writable(run_dir: Path) -> Iterator[None]:
    """Make the run directory; turn a refusal to write, from whichever library, into a RunDirectoryError."""
    try:
        refuse_foreign_directory(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        yield
    except Exception as error:
        if (reason := no_space(error)) is not None:
            free = shutil.disk_usage(run_dir).free / 1e9
            raise RunDirectoryError(
                f"Cannot write to {run_dir}: {reason} ({free:.1f} GB free)",
                "Free some space or choose another --run-dir, then run again: complete stages are kept.",
            ) from error
        # filename is the run directory, what is in it, or the folder that could not be made for it
        path, whole = Path(getattr(error, "filename", None) or "?").absolute(), run_dir.absolute()
        if isinstance(error, OSError) and (whole in (path, *path.parents) or path in whole.parents):
            raise RunDirectoryError(f"Cannot use {run_dir}: {error.strerror}", "Choose another --run-dir.") from error
        raise
