"""The surrogate's loss drop of each sample by a surrogate that has not seen its user: a signal that is none yet.

    python -m benchmarks.cross_fitted_scores RUN_DIR --out scores.parquet [--folds 2]

RUN_DIR: of a run, or a replicate of a comparison (`runs/movies/replicate-0`), with a surrogate and its loss drop. Users
fall into so many folds; for each a surrogate is trained on the others and then tuned on the validation samples, as the
stage surrogate_loss_drop does, and the samples of the fold are scored by it. Folds are brought to one scale by ranks,
from 0 to 1. Written is a table of sample_id and cross_fitted, for a method file to read (section 13 of
docs/experiments.md).
"""

import argparse
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch
from scipy.stats import rankdata

from dealrec.columns import SAMPLE, USER
from dealrec.config import Config
from dealrec.config.arms import replicate_seed
from dealrec.engine.run_directory import read_table
from dealrec.engine.runner import recorded_config
from dealrec.engine.stage import Context, Silent
from dealrec.stages import surrogate, surrogate_loss
from dealrec.stages.surrogate_loss_drop import STAGE, losses_once_tuned
from dealrec.stages.validation_draw import folds
from dealrec.surrogate import train


def main() -> None:
    """Train, tune, score and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(1)
    config = recorded_config(given.run_dir, Config)
    context = Context(STAGE.name, config, Silent(), given.run_dir, given.run_dir, STAGE.inputs)
    samples = read_table(given.run_dir / "data" / "samples-train.parquet")
    units, valid = surrogate.units(context, "train"), surrogate.units(context, "valid")
    seed, training = replicate_seed(config), surrogate.training_settings(config)
    (drawn,) = folds(context, len(valid), config.surrogate_loss_drop.validation_samples)
    fold, scores, begun = fold_of(samples[USER], given.folds, seed), np.zeros(len(samples)), time.process_time()
    for number in range(given.folds):
        model, own = surrogate.new_model(context), fold == number
        train(model, units.take(torch.tensor(np.flatnonzero(~own))), valid, **training, seed=seed)
        before = surrogate_loss.target_losses(context, model)
        drop = (before - losses_once_tuned(context, model, valid, drawn)).numpy()
        print(
            f"fold {number + 1}: drop {drop[own].mean():.3f}, of those that it was trained on {drop[~own].mean():.3f}"
        )
        scores[own] = (rankdata(drop[own]) - 0.5) / own.sum()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame([samples[SAMPLE], pl.Series("cross_fitted", scores)]).write_parquet(given.out)
    print(f"{len(samples):,} samples in {time.process_time() - begun:.0f} s of CPU time; {given.out}")


def fold_of(users: pl.Series, count: int, seed: int) -> np.ndarray:
    """The fold of each sample, which all of a user share, drawn at random: [n]."""
    everyone = users.unique(maintain_order=True)
    drawn = torch.randperm(len(everyone), generator=torch.Generator().manual_seed(seed + 99)) % count
    table = pl.DataFrame([everyone, pl.Series("fold", drawn.numpy())])
    return users.to_frame().join(table, on=users.name, how="left", maintain_order="left")["fold"].to_numpy()


if __name__ == "__main__":
    main()
