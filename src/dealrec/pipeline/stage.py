"""What a stage is: a name, what it reads, which settings can change its outcome, and a function."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dealrec.config import Config

T = TypeVar("T")


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


@dataclass
class Context:
    """What a stage works with. It can read what it declared as inputs and write into its own folder, no more."""

    name: str
    config: Config
    progress: Progress
    run_dir: Path
    out: Path
    inputs: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def input(self, name: str) -> Path:
        """Path of an input such as `data/items.parquet`; a KeyError if the stage has not declared it."""
        if not any(name == declared or name.startswith(f"{declared}/") for declared in self.inputs):
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

    def folder_once(self, name: str, fill: Callable[[Path], None]) -> None:
        """Have `fill` write a folder of shards, unless an interrupted run has already completed it."""
        done, staging = self.shard(name), self.shard(f"{name}.tmp")
        if not done.exists():
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir()
            fill(staging)
            staging.rename(done)

    def publish(self, names: Sequence[str]) -> None:
        """Move finished shards into the stage's folder, where they are its outcome."""
        for name in names:
            self.shard(name).rename(self.out / name)

    def shard(self, name: str) -> Path:
        """Path of a file that survives a kill and is gone when the stage is complete."""
        folder = self.out / "shards"
        folder.mkdir(exist_ok=True)
        return folder / name


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    version: raised when the code changes what comes out. inputs: files (`data/items.parquet`) or whole folders
    (`finetune`) of earlier stages. settings: dotted names of the parts of the config that can change the
    outcome. outside: files and names outside the run directory that it depends on. after: what must hold
    before the next stages are worth computing; checked whether the stage ran or was up to date. reads_manifests:
    it shows what earlier stages cost and said, so that any of them that ran makes it run.
    """

    name: str
    version: int
    run: Callable[[Context], None]
    inputs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    outside: Callable[[Config], Iterable[Path | str]] = lambda _config: ()
    after: Callable[[Config, Path], object] = lambda _config, _run_dir: None
    reads_manifests: bool = False
