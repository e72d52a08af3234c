"""A run in small: the real stages, on some of the data and with small settings, in a folder that is thrown away."""

import shutil
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from dealrec.columns import SAMPLE
from dealrec.config import Config
from dealrec.config.files import with_setting
from dealrec.engine.measure import Cost, Meter
from dealrec.engine.run_directory import read_table
from dealrec.engine.stage import SHARDS, Silent
from dealrec.engine.stage import UNITS as UNIT_FOLDERS
from dealrec.estimates.cuts import some_rows, write_cut
from dealrec.estimates.scales import LEAST_TITLES, SAMPLES, TITLES, UNITS, settings_of
from dealrec.stages.context import Context, Stage

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

    def run(self, stage: Stage, sizes: Mapping[str, int]) -> Cost:
        """Run a stage at sizes by the names of axes, the data stage as a whole; later ones read its last outcome."""
        view, config = self.folder / stage.name, self.config
        shutil.rmtree(view, ignore_errors=True)
        out = view / stage.name
        out.mkdir(parents=True)
        if self.outcomes:
            self._write_inputs(view, sizes)
            config = _small(stage.view(self.config), sizes)
        context = Context(stage.name, config, Silent(), view, out, stage.inputs)
        meter = Meter()
        stage.run(context)
        cost = meter.read()
        for folder in (SHARDS, UNIT_FOLDERS):
            shutil.rmtree(out / folder, ignore_errors=True)
        self.warnings += [] if self.outcomes else context.warnings
        self.keep(stage, view)
        return cost

    def _write_inputs(self, view: Path, sizes: Mapping[str, int]) -> None:
        """Some units with all titles, which what is done with them depends on; else few titles, and some samples."""
        data, rows, samples = self.outcomes["data"], dict[str, int](), sizes.get(SAMPLES, 1)
        if view.name.endswith("warmstart"):
            rows["samples-warm"] = samples
        if UNITS in sizes:
            rows["samples-train"] = sizes[UNITS]
            if not any(name.endswith("validation_samples") for name in sizes):
                units, valid = (len(read_table(data / f"samples-{part}.parquet")) for part in ("train", "valid"))
                rows["samples-valid"] = -(-valid * sizes[UNITS] // units)
        titles = None if UNITS in sizes else sizes.get(TITLES, LEAST_TITLES)
        cut = self.folder / "-".join(map(str, ("cut", titles, *rows.values())))
        if not cut.exists():
            write_cut(data, cut, rows=rows, titles=titles)
        candidates = some_rows(read_table(cut / "samples-train.parquet"), samples).select(SAMPLE)
        for path in (view / "pool" / "pool.parquet", view / "select" / "selected.parquet"):
            path.parent.mkdir()
            candidates.write_parquet(path)
        for name, outcome in (self.outcomes | {"data": cut}).items():
            if name != view.name:
                (view / name).symlink_to(outcome)


def _small(config: Config, sizes: Mapping[str, int]) -> Config:
    """The settings of the run with the sizes, and with what else would take long as small as it can be."""
    settings = {name: value for name, value in settings_of(config).items() if value is not None}
    small = {name: value for name in settings for pattern, value in SMALL.items() if fnmatch(name, pattern)}
    if "influence.solver.max_iter" in settings:  # the one is wanted
        small |= {"influence.solver.tol": 1e-12, "influence.solver.allow_unconverged": True}
    for name, value in (small | {name: size for name, size in sizes.items() if "." in name}).items():
        config = with_setting(config, name.split("."), value)
    return config
