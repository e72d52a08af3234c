"""A run in small: the real stages, on some of the data and with small settings, in a folder that is thrown away."""

import shutil
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dealrec.columns import HISTORY, ITEM, ITEM_INDEX, LENGTH, ROWS, SAMPLE, TARGET, TITLE
from dealrec.config import Config
from dealrec.config.files import with_setting
from dealrec.engine.measure import Cost, Meter
from dealrec.engine.run_directory import read_table
from dealrec.engine.settings import leaves, recorded
from dealrec.engine.stage import Silent
from dealrec.estimates.scales import LEAST_TITLES, SAMPLES, TITLES, UNITS
from dealrec.stages.context import Context, Stage

OCCURRING = LEAST_TITLES // 2  # titles that anything is about where they are few: something is left to recommend
BLOCK = 256  # training sequences alike in length stay together, as the batches of a run hold them
# One training of one arm, and nothing that would end it early, or leave traces elsewhere.
SMALL: Mapping[str, Any] = {
    "*epochs": 1,
    "*.patience": 1_000_000,
    "*.checkpoint_every": None,
    "*.warmup_share": 0.0,
    "*.report_to": "none",
    "finetune.seeds": 1,
    "select.selections": 1,
    "select.random_arms": 0,
    "select.arms": {},
    # What has hardly learnt is far from convex.
    "influence.solver.tol": 1e9,
    "influence.solver.damping": 1.0,
    "influence.solver.scale": 1e6,
    "influence.solver.repeats": 1,
    "influence.solver.max_iter": 1,
}


class Piece:
    """config: of the run that is estimated. folder: an empty one.

    outcomes: the folder of each stage so far, the run's own or made here. warnings: of the data.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.outcomes, self.warnings = dict[str, Path](), list[str]()

    def keep(self, stage: Stage, run_dir: Path) -> None:
        """Have later stages read what stands in a run directory, if what must hold of it does."""
        warnings = stage.after(self.config, run_dir)
        self.warnings += warnings if isinstance(warnings, list) else []
        self.outcomes[stage.name] = (run_dir / stage.name).absolute()

    def mean_size(self) -> float:
        """What a sample counts for in a budget, by those that there are; 1 before that is known."""
        unit = self.config.select.budget_unit
        if unit == "tokens" and "length" in self.outcomes:
            return _mean(read_table(self.outcomes["length"] / "scores.parquet")[LENGTH])
        if unit == "rows":
            samples = read_table(self.outcomes["data"] / "samples-train.parquet")
            return _mean(samples[ROWS].list.len()) if ROWS in samples.columns else 1.0
        return 1.0

    def run(self, stage: Stage, sizes: Mapping[str, int]) -> Cost:
        """Run a stage at sizes by the names of axes, the data stage as a whole; later ones read its last outcome."""
        view, config = self.folder / stage.name, self.config
        shutil.rmtree(view, ignore_errors=True)
        (view / stage.name).mkdir(parents=True)
        if self.outcomes:
            self._write_inputs(view, sizes)
            config = _small(stage.view(config), sizes)
        context = Context(stage.name, config, Silent(), view, view / stage.name, stage.inputs)
        meter = Meter()
        stage.run(context)
        cost = meter.read()
        self.warnings += [] if self.outcomes else context.warnings
        self.keep(stage, view)
        return cost

    def _write_inputs(self, view: Path, sizes: Mapping[str, int]) -> None:
        """Some units with all titles, which what is done with them depends on; else few titles, and some samples."""
        data, samples = self.outcomes["data"], "samples-warm" if view.name.endswith("warmstart") else "samples-train"
        if UNITS in sizes:
            units, valid = (len(read_table(data / f"samples-{part}.parquet")) for part in ("train", "valid"))
            aimed_at = [size for name, size in sizes.items() if name.endswith("validation_samples")]
            rows = {"samples-train": sizes[UNITS], "samples-valid": max([-(-valid * sizes[UNITS] // units), *aimed_at])}
        else:
            rows, titles = {samples: sizes.get(SAMPLES, 1)}, sizes.get(TITLES, LEAST_TITLES)
            whole, data = data, self.folder / f"titles-{titles}"
            if not data.exists():
                write_with_titles(whole, data, titles)
        (view / "data").mkdir()
        for path in data.glob("*.parquet"):
            if path.stem in rows:
                some = some_rows(read_table(path), rows[path.stem], block=BLOCK if UNITS in sizes else 1)
                some.write_parquet(view / "data" / path.name)
            else:
                (view / "data" / path.name).symlink_to(path.absolute())
        candidates = read_table(view / "data" / "samples-train.parquet").select(SAMPLE)
        for path in (view / "pool" / "pool.parquet", view / "select" / "selected.parquet"):
            path.parent.mkdir()
            candidates.write_parquet(path)
        for name in self.outcomes.keys() - {"data", view.name}:
            (view / name).symlink_to(self.outcomes[name])


def _mean(sizes: pl.Series) -> float:
    return float(np.mean(sizes.to_numpy()))


def _small(config: Config, sizes: Mapping[str, int]) -> Config:
    """The settings of the run with the sizes, and with what else would take long as small as it can be."""
    settings = leaves(recorded(config, Config.model_fields))
    names = ["select.arms", *(name for name, value in settings if value is not None)]
    small = {name: value for name in names for pattern, value in SMALL.items() if fnmatch(name, pattern)}
    if "influence.solver.max_iter" in names:  # the one is wanted
        small |= {"influence.solver.tol": 1e-12, "influence.solver.allow_unconverged": True}
    for name, value in (small | {name: size for name, size in sizes.items() if "." in name}).items():
        config = with_setting(config, name.split("."), value)
    return config


def some_rows(samples: pl.DataFrame, count: int, *, block: int = 1) -> pl.DataFrame:
    """So many samples, in blocks of neighbours by length, spread evenly from the shortest to the longest."""
    if count >= len(samples):
        return samples
    block = min(block, count)
    centres = (np.arange(count // block) + 0.5) * len(samples) / (count // block)
    rows = (centres - block / 2).astype(int)[:, None] + np.arange(block)
    return samples.sort(pl.col(HISTORY).list.len(), SAMPLE)[rows.ravel()].sort(SAMPLE)


def write_with_titles(data: Path, out: Path, count: int) -> None:
    """Write the tables of `data` to `out` with so many titles, from `OCCURRING` on, evenly of all lengths.

    Items are replaced by some that are like them in length and that are there at every count, so that no history gets
    shorter, and that what has learnt of few titles can read them where there are more.
    """
    out.mkdir()
    items = read_table(data / "items.parquet").sort(pl.col(TITLE).str.len_chars(), ITEM_INDEX)
    n, ranks = len(items), np.arange(len(items))
    kept = items[ranks[:count] * n // min(count, n)]
    stand_ins = (items[ITEM], items[ITEM][ranks * OCCURRING // n * n // OCCURRING])
    columns = {name: pl.col(name).replace(*stand_ins) for name in (ITEM, TARGET)}
    columns[HISTORY] = pl.col(HISTORY).list.eval(pl.element().replace(*stand_ins))
    for path in data.glob("*.parquet"):
        if path.stem == "items":
            table = kept.with_columns(pl.int_range(1, pl.len() + 1).alias(ITEM_INDEX))
        else:
            table = read_table(path)
            table = table.with_columns(column for name, column in columns.items() if name in table.columns)
        table.write_parquet(out / path.name)
