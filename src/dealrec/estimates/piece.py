"""A run in small: the real stages, on some of the data and with small settings, in a folder that is thrown away."""

import gc
import shutil
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import polars as pl

from dealrec.config import Config
from dealrec.engine.measure import Cost, Meter
from dealrec.engine.run_directory import read_table
from dealrec.engine.stage import SHARDS, Context, Silent, Stage
from dealrec.engine.stage import UNITS as UNITS_FOLDER
from dealrec.estimates.cuts import items_read, write_cut
from dealrec.estimates.scales import LEAST_TITLES, TITLES, UNITS, WARM, settings_of, small_budget

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


class Piece:
    """config: of the run that is estimated. folder: in the place of its run directory, with the whole data stage's."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.config, self.folder, self.whole = config, folder, folder / "whole"
        (folder / "data").rename(self.whole)
        tables = {name: f"samples-{name}" for name in ("valid", "test")}
        tables |= {UNITS: "samples-train", WARM: "samples-warm", TITLES: "items"}
        self.counts = {name: _rows(self.whole / f"{table}.parquet") for name, table in tables.items()}

    def cost(self, stage: Stage, sizes: Mapping[str, int]) -> Cost:
        """Of running a stage; what comes out takes the place of what came out before. sizes: by the names of axes."""
        self._cut(sizes)
        part, out = self.folder / f"{stage.name}.part", self.folder / stage.name
        part.mkdir()
        context = Context(stage.name, self._settings(sizes), Silent(), self.folder, part, stage.inputs)
        gc.collect()
        meter = Meter()
        stage.run(context)
        cost = meter.read()
        for kept in (SHARDS, UNITS_FOLDER):
            shutil.rmtree(part / kept, ignore_errors=True)
        shutil.rmtree(out, ignore_errors=True)
        part.rename(out)
        return cost

    def measure(self, name: str, size: int) -> float:
        """What the cost of a size of an axis is proportional to: of units not their number, but the items in them."""
        if name != UNITS:
            return size
        self._cut({UNITS: size})
        return items_read(read_table(self.folder / "data" / "samples-train.parquet"))

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
        settings = settings_of(self.config)
        changed = {
            name: small
            for name, value in settings.items()
            for pattern, small in SMALL.items()
            if fnmatch(name, pattern) and value is not None
        }
        if "influence.solver.max_iter" in settings:  # all iterations are wanted, however far it gets
            changed |= {"influence.solver.tol": 1e-12, "influence.solver.allow_unconverged": True}
        # What is to be solved is of a surrogate that has hardly learnt: let it converge in any case.
        for name, least in {"influence.solver.damping": 1.0, "influence.solver.scale": 1e6}.items():
            if settings.get(name) is not None:
                changed[name] = max(settings[name], least)
        changed["select.budget"] = small_budget(self.config, self.counts)
        content = self.config.model_dump()
        for name, value in (changed | {name: size for name, size in sizes.items() if "." in name}).items():
            *sections, leaf = name.split(".")
            section = content
            for key in sections:
                section = section[key]
            section[leaf] = value
        return Config.model_validate(content)


def _rows(path: Path) -> int:
    return int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())
