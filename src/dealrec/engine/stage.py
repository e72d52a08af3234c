"""What a stage is: a name, what it reads, which settings can change its outcome, and a function."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol

from typing_extensions import TypeVar

from dealrec.engine.hashes import file_hash
from dealrec.engine.measure import clock
from dealrec.engine.settings import Settings

SHARDS, UNITS = "shards", "units"  # folders of a stage that is not complete
HASHES = ".sha256"  # ends the name of what holds the hashes of a finished folder's files, beside it
OUTSIDE, MACHINE = "outside", "machine"  # what names of inputs begin with that are of no stage

T = TypeVar("T")
SettingsT = TypeVar("SettingsT", bound=Settings, default=Any)


class Progress(Protocol):
    """Shows what goes on; everything goes to stderr."""

    def bar(self, label: str, total: int | None = None) -> AbstractContextManager[Callable[[], None]]:
        """While open, a bar; the function that it yields advances it by one. total None: not known."""
        ...

    def say(self, message: str) -> None:
        """Print a line."""
        ...


class Silent:
    """A Progress that shows nothing."""

    def say(self, message: str) -> None:
        """Drop the line."""

    @contextmanager
    def bar(self, label: str, total: int | None = None) -> Iterator[Callable[[], None]]:  # noqa: ARG002
        """Show nothing."""
        yield lambda: None


@dataclass(frozen=True)
class Origin:
    """What a stage's outcome is made from, as far as it is known before the stage runs.

    settings: by dotted name, but for those at their defaults. hashes: SHA-256 by name of every input, of things
    outside the run directory, and what the machine computes on.
    """

    stage: str
    version: int
    settings: Mapping[str, Any]
    hashes: Mapping[str, str]

    def digest(self) -> str:
        """The fingerprint of the outcome."""
        return _digest([self.stage, self.version, self.settings, self.hashes])

    def part(self, name: str, *, without: Collection[str], inputs: Collection[str], given: Any = None) -> str:
        """The fingerprint of a unit that these settings cannot change, and that reads these inputs alone.

        given: what else it is made from, as JSON has it; None: nothing.
        """
        settings = {key: value for key, value in self.settings.items() if key not in without}
        sources = (*inputs, OUTSIDE, MACHINE)
        hashes = {key: value for key, value in self.hashes.items() if any(within(key, source) for source in sources)}
        return _digest([self.stage, self.version, name, settings, hashes, *([] if given is None else [given])])


@dataclass
class Context(Generic[SettingsT]):
    """What a stage works with. It can read what it declared as inputs and write into its own folder, no more.

    earlier: units by name of the stage's complete folder, `run_dir / name`, each with its fingerprint; earlier_costs:
    their wall and CPU seconds. unit_costs: those of this run's units, carried: of those that it did not make itself.
    unit_key: the fingerprint of the one that is being made, where it is made of less than the stage.
    """

    name: str
    config: SettingsT
    progress: Progress
    run_dir: Path
    out: Path
    inputs: tuple[str, ...]
    origin: Origin | None = None
    earlier: Mapping[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    units: dict[str, str] = field(default_factory=dict)
    earlier_costs: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    unit_costs: dict[str, tuple[float, float]] = field(default_factory=dict)
    carried: list[str] = field(default_factory=list)
    unit_key: str = ""

    def input(self, name: str) -> Path:
        """Path of an input such as `data/items.parquet`; a KeyError if the stage has not declared it."""
        if not any(within(name, declared) for declared in self.inputs):
            raise KeyError(f"{name} is not among the declared inputs {self.inputs}")
        return self.run_dir / name

    def warn(self, message: str) -> None:
        """Tell the user now, and keep it in the manifest for the report."""
        self.warnings.append(message)
        self.progress.say(f"warning: {message}")

    def track(self, items: Sequence[T], label: str) -> Iterator[T]:
        """Yield the items behind a progress bar."""
        with self.progress.bar(f"{self.name}: {label}", len(items)) as advance:
            for item in items:
                yield item
                advance()

    def shard(self, name: str) -> Path:
        """Path of a file or folder that an interrupted run keeps, and that is gone when the stage is complete.

        It is kept under what it was made from: a run with other settings does not find it, and deletes it only when it
        has completed the stage.
        """
        return self._kept(self.origin.digest() if self.origin else "shards", name)

    def scratch(self, name: str) -> Path:
        """The same of the unit that is being made, kept under what that alone is made from; outside of one a shard."""
        return self._kept(self.unit_key, name) if self.unit_key else self.shard(name)

    def _kept(self, key: str, name: str) -> Path:
        folder = self.out / SHARDS / key[:16]
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def shard_once(self, name: str, fill: Callable[[Path], None]) -> Path:
        """Have `fill` write a folder of shards, unless an interrupted run has already completed it; its path."""
        return _fill_once(self.shard(name), fill)

    def unit(
        self,
        name: str,
        fill: Callable[[Path], None],
        *,
        without: Collection[str] = (),
        inputs: Collection[str] | None = None,
        given: Any = None,
    ) -> Path:
        """Have `fill` write the folder `name` of the outcome, unless it is there and was made of the same; its path.

        A unit has a fingerprint of its own: what the rest of the stage is made of does not make it anew. It is taken
        from an interrupted run or from the complete stage, whatever else has changed. without: settings of the stage
        that cannot change it; inputs: what it reads of the stage's inputs; None: all of them. given: as `Origin.part`
        has it.
        """
        key, unit = self.unit_place(name, without=without, inputs=inputs, given=given)
        unit.parent.mkdir(parents=True, exist_ok=True)
        cost = unit.with_name(f"{unit.name}.json")

        # The cost is written before the unit has its name, so that a kill in between has the unit made again.
        def carry(staging: Path) -> None:
            link_folder(self.run_dir / self.name / name, staging)
            cost.write_text(json.dumps(self.earlier_costs.get(name, (0.0, 0.0))))

        def make(staging: Path) -> None:
            begun = clock()
            self.unit_key = key if without or inputs is not None else ""  # else it is made of what the stage is
            try:
                fill(staging)
            finally:
                self.unit_key = ""
            cost.write_text(json.dumps([round(now - then, 3) for now, then in zip(clock(), begun, strict=True)]))

        if key and self.earlier.get(name) == key:
            _fill_once(unit, carry)
        if unit.exists():
            self.carried.append(name)
        _fill_once(unit, make)
        self.unit_costs[name] = tuple(json.loads(cost.read_text())) if cost.exists() else (0.0, 0.0)
        # Linked, not moved: whatever fails from here on, the unit is there for the next run.
        link_folder(unit, self.out / name)
        self.units[name] = key
        return self.out / name

    def unit_place(
        self, name: str, *, without: Collection[str] = (), inputs: Collection[str] | None = None, given: Any = None
    ) -> tuple[str, Path]:
        """The fingerprint of a unit, and where it lies until the stage is complete; made of what `unit` says."""
        sources = self.inputs if inputs is None else inputs
        key = self.origin.part(name, without=without, inputs=sources, given=given) if self.origin else ""
        return key, self.out / UNITS / f"{name}@{key[:16]}"


@dataclass(frozen=True)
class Stage(Generic[SettingsT]):
    """One step of the pipeline.

    version: raised when the code changes what comes out. inputs: files (`data/items.parquet`) or whole folders
    (`finetune`) of earlier stages. settings: dotted names of the parts of the config that can change the
    outcome. outside: files and names outside the run directory that it depends on. machine: what of the machine can
    change the outcome, such as the kind of device. after: what must hold before the next stages are worth computing;
    checked whether the stage ran or was up to date. reads_manifests: it shows what earlier stages cost and said, so
    that any of them that ran makes it run. view: the settings as the stage sees them.
    """

    name: str
    version: int
    run: Callable[[Context[SettingsT]], None]
    inputs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    outside: Callable[[SettingsT], Iterable[Path | str]] = lambda _config: ()
    machine: Callable[[SettingsT], Iterable[str]] = lambda _config: ()
    after: Callable[[SettingsT, Path], object] = lambda _config, _run_dir: None
    reads_manifests: bool = False
    view: Callable[[SettingsT], SettingsT] = lambda config: config


def within(name: str, declared: str) -> bool:
    """Whether a path such as `select/selected.parquet` is one that was declared, or lies in a folder that was."""
    return name == declared or name.startswith(f"{declared}/")


def link_folder(source: Path, target: Path) -> None:
    """A copy of a folder, of hard links where the file system has them."""
    shutil.copytree(source, target, dirs_exist_ok=True, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _fill_once(path: Path, fill: Callable[[Path], None]) -> Path:
    staging = path.with_name(f"{path.name}.tmp")
    if not path.exists():
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        fill(staging)
        files = [file for file in staging.rglob("*") if file.is_file()]
        hashes = {file.relative_to(staging).as_posix(): file_hash(file) for file in files}
        path.with_name(f"{path.name}{HASHES}").write_text(json.dumps(hashes))
        staging.rename(path)
    return path


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
