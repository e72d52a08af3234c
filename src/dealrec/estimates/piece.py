"""A run in small: the real stages, on some of the data and with small settings, in a folder that is thrown away."""

import gc
import shutil
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dealrec.columns import GENERATED, HISTORY, SAMPLE, USER
from dealrec.config import Config
from dealrec.config.arms import BASE, fine_tunings
from dealrec.config.files import with_setting
from dealrec.engine.measure import Cost, Meter
from dealrec.engine.run_directory import read_table
from dealrec.engine.stage import SHARDS, Silent
from dealrec.engine.stage import UNITS as UNIT_FOLDERS
from dealrec.estimates.cuts import write_cut
from dealrec.estimates.scales import LEAST_TITLES, POOL, TITLES, UNITS, WARM, settings_of, small_budget
from dealrec.stages.context import Context, Stage

PER_USER = "per_user.parquet"
# The smallest amount of everything, and nothing that would end a small run early, or leave traces elsewhere.
SMALL: Mapping[str, Any] = {
    "*epochs": 1,
    "*.validation_samples": 1,
    "*.patience": 1_000_000,
    "*.checkpoint_every": None,
    "*.warmup_share": 0.0,
    "*.report_to": "none",
    "influence.solver.repeats": 1,
    "influence.solver.tol": 1e9,
    "select.hard_prune": 0.0,
    "select.selections": 1,
    "select.random_arms": 0,
    "finetune.seeds": 1,
}
CONVERGING = {"influence.solver.damping": 1.0, "influence.solver.scale": 1e6}  # at least, for what has hardly learnt


class Piece:
    """config: of the run that is estimated. folder: in the place of its run directory, with the whole data stage's."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.config, self.folder, self.whole = config, folder, folder / "whole"
        (folder / "data").rename(self.whole)
        tables = {"valid": "samples-valid", "test": "samples-test"}
        tables |= {UNITS: "samples-train", WARM: "samples-warm", TITLES: "items"}
        paths = {name: self.whole / f"{table}.parquet" for name, table in tables.items()}
        self.counts = {
            name: int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())
            for name, path in paths.items()
        }
        self.counts["test"] = read_table(paths["test"])[USER].n_unique()

    def cost(self, stage: Stage, sizes: Mapping[str, int], *, whole: bool = False) -> Cost:
        """Of running a stage; what comes out takes the place of what came out before.

        sizes: by the names of axes. whole: with the settings of the run.
        """
        self._cut(sizes)
        if POOL in sizes:
            samples = read_table(self.folder / "data" / "samples-train.parquet").select(SAMPLE)
            samples[: sizes[POOL]].write_parquet(self.folder / "pool" / "pool.parquet")
        part, out = self.folder / f"{stage.name}.part", self.folder / stage.name
        part.mkdir()
        config = self.config if whole else self._settings(sizes)
        context = Context(stage.name, config, Silent(), self.folder, part, stage.inputs)
        gc.collect()
        meter = Meter()
        stage.run(context)
        cost = meter.read()
        for folder in (part / SHARDS, part / UNIT_FOLDERS, out):
            shutil.rmtree(folder, ignore_errors=True)
        part.rename(out)
        return cost

    def measure(self, name: str, size: int) -> float:
        """What the cost of a size of an axis is proportional to: of units not their number, but the items in them."""
        if name != UNITS:
            return size
        self._cut({UNITS: size})
        samples = read_table(self.folder / "data" / "samples-train.parquet")
        return int(samples.select((pl.col(HISTORY).list.len() + 1).sum()).item())  # the target included

    def stand_in_users(self) -> None:
        """Random measures in the place of what evaluation measures, of as many arms and users as in the run."""
        settings, draw = self.config.evaluate, np.random.default_rng(self.config.seed)
        limits = (settings.loss_users, settings.ranking_users)
        users = max(min(self.counts["test"], limit or self.counts["test"]) for limit in limits)
        evaluated = self.folder / "evaluate"
        measures = [name for name in read_table(evaluated / BASE / PER_USER).columns if name not in (USER, GENERATED)]
        for arm in (BASE, *(tuning.name for tuning in fine_tunings(self.config))):
            if arm != BASE:
                shutil.copytree(evaluated / BASE, evaluated / arm, dirs_exist_ok=True)
            values = {name: draw.random(users) for name in measures}
            pl.DataFrame({USER: range(users), **values}).write_parquet(evaluated / arm / PER_USER)

    def _cut(self, sizes: Mapping[str, int]) -> None:
        """Surrogates see all items, which their cost depends on, and few units; recommenders few titles."""
        shares = {
            f"samples-{part}": sizes[name] / self.counts[name]
            for name, part in ((UNITS, "train"), (UNITS, "valid"), (WARM, "warm"))
            if name in sizes and sizes[name] < self.counts[name]
        }
        titles = None if UNITS in sizes else sizes.get(TITLES, LEAST_TITLES)
        cut = self.folder / "-".join(map(str, ["cut", titles, *shares.values()]))
        if not cut.exists():
            write_cut(self.whole, cut, shares=shares, titles=titles, occurring=LEAST_TITLES)
        (self.folder / "data").unlink(missing_ok=True)
        (self.folder / "data").symlink_to(cut)

    def _settings(self, sizes: Mapping[str, int]) -> Config:
        """Those of the run, with the sizes, and everything else that is large at its smallest."""
        settings = {name: value for name, value in settings_of(self.config).items() if value is not None}
        small = {name: least for name in settings for pattern, least in SMALL.items() if fnmatch(name, pattern)}
        if "influence.solver.max_iter" in settings:  # all iterations are wanted, however far it gets
            small |= {"influence.solver.tol": 1e-12, "influence.solver.allow_unconverged": True}
        small |= {name: max(settings[name], least) for name, least in CONVERGING.items() if name in settings}
        small["select.arms"] = {}
        small["select.budget"] = small_budget(self.config, self.counts)
        config = self.config
        for name, value in (small | {name: size for name, size in sizes.items() if "." in name}).items():
            config = with_setting(config, name.split("."), value)
        return config
