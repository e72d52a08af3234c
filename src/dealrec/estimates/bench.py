"""Where pieces of the stages are measured: a folder like a run's, with stand-ins for what has not been computed."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import polars as pl

from dealrec.columns import EFFORT, INFLUENCE, SAMPLE
from dealrec.config import Config
from dealrec.engine.stage import Context, Progress, Silent, Stage
from dealrec.stages.pipeline import STAGES
from dealrec.stages.tables import read_samples, write_table

if TYPE_CHECKING:
    from dealrec.recommenders.protocol import Recommender

T = TypeVar("T")
Watched = list[tuple[float, T]]  # what a loop has gone through, each with the time at which it was done with

LEAST = 0.5  # seconds that a measurement of something short lasts, so that its noise is small


@dataclass
class Bench:
    """config: of the run that is estimated. folder: stands for its run directory, and is thrown away.

    shards: by stage, what an interrupted run has left. started: the recommender and the seconds that its loading took,
    once it has been loaded; all stages measure it. warnings: of the data.
    """

    config: Config
    folder: Path
    progress: Progress
    started: "tuple[Recommender, float] | None" = None
    shards: dict[str, frozenset[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def context(self, name: str) -> Context:
        """What the stage of that name would work with; it shows nothing, and writes where nothing is kept."""
        out = self.folder / f"{name}.part"
        out.mkdir(exist_ok=True)
        return Context(name, self.config, Silent(), self.folder, out, _stage(name).inputs)

    def stand_in(self, name: str) -> Path:
        """The folder for what stands in for a stage's outcome."""
        folder = self.folder / name
        folder.mkdir()
        return folder

    def has(self, name: str) -> bool:
        """Whether the outcome of the stage of that name is there, or what stands in for it."""
        return (self.folder / name).exists()

    def take(self, name: str, run_dir: Path) -> None:
        """Take a stage's outcome from the run directory, to be read alone."""
        (self.folder / name).symlink_to((run_dir / name).absolute())

    def unfinished(self, name: str, wanted: Sequence[str]) -> list[str]:
        """Those of the wanted shards that an interrupted run of the stage has not left."""
        return [shard for shard in wanted if shard not in self.shards.get(name, frozenset())]

    def stand_in_selection(self) -> None:
        """What is not there of influence, a pool and its effort, drawn at random, and what is selected by that."""
        from dealrec.selection import budget_count, coverage_sample

        draw = np.random.default_rng(self.config.seed)
        if not self.has("influence"):
            ids = read_samples(self.folder / "data" / "samples-train.parquet").select(SAMPLE)
            scores = ids.with_columns(pl.Series(INFLUENCE, draw.standard_normal(len(ids))))
            write_table(self.stand_in("influence") / "scores.parquet", scores, key=SAMPLE)
        if not self.has("effort"):
            scores = pl.read_parquet(self.folder / "influence" / "scores.parquet").sort(SAMPLE)
            size = budget_count(self.config.effort.pool, len(scores))
            picked = coverage_sample(scores[INFLUENCE].to_torch(), size, seed=self.config.seed)
            pool = scores[picked.numpy()].select(SAMPLE)
            folder = self.stand_in("effort")
            write_table(folder / "pool.parquet", pool, key=SAMPLE)
            effort = pool.with_columns(pl.Series(EFFORT, draw.random(len(pool))))
            write_table(folder / "scores.parquet", effort, key=SAMPLE)
        if not self.has("select"):
            self.run("select")

    def run(self, name: str) -> float:
        """Run a whole stage that is quick, and return the seconds that it took."""
        context = self.context(name)
        seconds = seconds_of(lambda: _stage(name).run(context))
        if not self.has(name):
            context.out.rename(self.folder / name)
        return seconds


def _stage(name: str) -> Stage:
    return next(stage for stage in STAGES if stage.name == name)


def seconds_of(work: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def settled_seconds_of(work: Callable[[], object]) -> float:
    """Wall seconds of a call, mean over as many as `LEAST` seconds hold, after one that is not counted."""
    work()  # makes what later calls use again
    start, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - start < LEAST:
        work()
        calls += 1
    return (time.perf_counter() - start) / calls


def watched(items: Iterable[T], seen: Watched[T], *, least: float = math.inf) -> Iterator[T]:
    """Yield the items and add to `seen` when each was done with; end when that took `least` seconds after the first."""
    for item in items:
        yield item
        seen.append((time.perf_counter(), item))
        if len(seen) > 1 and seen[-1][0] - seen[0][0] >= least:
            return


def seconds_each(seen: Watched[T], size: Callable[[T], int] = lambda _item: 1) -> float:
    """Seconds by size, mean over all but the first, which is slower: it makes what later ones use again."""
    return (seen[-1][0] - seen[0][0]) / sum(size(item) for _, item in seen[1:])
