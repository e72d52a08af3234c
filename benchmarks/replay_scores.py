"""What a replay of the surrogate's last epochs says of each sample of a run: a signal that is none of the product.

    python -m benchmarks.replay_scores RUN_DIR --out scores.parquet [--epochs 4]

RUN_DIR: of a run, or a replicate of a comparison (`runs/movies/replicate-0`), whose surrogate is trained. It is trained
again up to so many epochs before its best one, and these are then differentiated with respect to the weight of each
unit's loss in them, as `replay.py` does: the score is by how much the mean validation loss would rise without it.
Written is a table of sample_id and replay, for a method file to read (section 13 of docs/experiments.md).
"""

import argparse
import time
from pathlib import Path

import polars as pl
import torch

from benchmarks.replay import Replay, Surrogates
from dealrec.columns import EPOCH, SAMPLE, VALID_NDCG
from dealrec.config import Config
from dealrec.config.arms import replicate_seed
from dealrec.engine.run_directory import read_table
from dealrec.engine.runner import recorded_config
from dealrec.engine.stage import Context, Silent
from dealrec.stages.retrain import DATA

ONE_TARGET = {"groups": 1}  # all validation samples


def main() -> None:
    """Replay and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    config = recorded_config(given.run_dir, Config)
    config = config.model_copy(update={"fidelity": config.fidelity.model_copy(update=ONE_TARGET)})
    given.out.parent.mkdir(parents=True, exist_ok=True)
    context = Context("fidelity", config, Silent(), given.run_dir, given.run_dir, DATA)
    surrogates = Surrogates(context, given.out.parent)
    best = int(read_table(given.run_dir / "surrogate" / "training.parquet").sort(VALID_NDCG)[EPOCH][-1])
    begun = time.process_time()
    last = min(given.epochs, best - 1)
    replayed = Replay(surrogates, replicate_seed(config), best, last, torch.float32)
    trained = time.process_time()
    scores = replayed.scores()[:, 0].double()
    ids = read_table(given.run_dir / "data" / "samples-train.parquet")[SAMPLE]
    pl.DataFrame([ids, pl.Series("replay", scores.numpy())]).write_parquet(given.out)
    seconds = f"{trained - begun:.0f} s of CPU time to train again, {time.process_time() - trained:.0f} s to replay"
    print(f"{len(ids):,} samples, the last {last} of {best} epochs: {seconds}; {given.out}")


if __name__ == "__main__":
    main()
