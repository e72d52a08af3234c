"""How well each surrogate recommends, beside popularity and the user's own latest items.

    python benchmarks/surrogates.py [--games FOLDER] [--runs runs/surrogates] [--only KIND ...] [--out surrogates.json]

MovieLens-100K (fetched from the package index; leave-last-out), and Amazon Games where its folder is given (two Parquet
files, interactions with user_id, item_id, position, split and items with item_id, title; split as given). The target is
each user's first test item, the history all training and validation items, the ranking over the whole catalogue;
seen items are not masked, and in the columns "unseen" they are. Training ends by validation NDCG@10. Every surrogate
has a run directory, so that what was interrupted goes on.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dealrec.cli.progress import TerminalProgress
from dealrec.columns import TARGET
from dealrec.config import Config
from dealrec.config.files import parse
from dealrec.data.catalogue import Catalogue, sequences
from dealrec.demo.assets import fetch
from dealrec.engine.run_directory import read_table
from dealrec.engine.runner import run
from dealrec.engine.stage import Context
from dealrec.stages.pipeline import stages_until
from dealrec.stages.surrogate import trained
from dealrec.surrogate import Units, make_units, target_ranks

KS = (10, 20)
# What differs from the defaults. Only SASRec was tuned, by hand, on the validation NDCG@10.
SURROGATES: dict[str, dict[str, Any]] = {
    "sasrec": {},
    "sasrec, bce as published": {"loss": "bce", "negatives": 1, "dropout": 0.2},
    "gru4rec": {"kind": "gru4rec", "layers": 1, "learning_rate": 3e-3},
    "mf": {"kind": "mf", "learning_rate": 3e-3},
    "bert4rec": {"kind": "bert4rec"},
}
LIMITS = {"max_epochs": 60, "patience": 6}


def main() -> None:
    """Train what is missing, rank, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/surrogates"))
    parser.add_argument("--only", nargs="*", choices=list(SURROGATES), default=list(SURROGATES))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for data, section in sources(options.games).items():
        for name in options.only:
            settings = parse({"data": section, "surrogate": SURROGATES[name] | LIMITS}, base=Path.cwd())
            folder = options.runs / data / name.partition(",")[0].replace(" ", "-") / str(settings.surrogate.loss)
            rows.append({"data": data, "recommender": name, **trained_row(settings, folder)})
        rows += [{"data": data, "recommender": name, **row} for name, row in untrained_rows(settings, folder)]
    show(rows)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2) + "\n")


def sources(games: Path | None) -> dict[str, dict[str, Any]]:
    """The data sections of the config, by name."""
    movielens = fetch(progress=TerminalProgress(), llm=False) / "movielens-100k"
    sections: dict[str, dict[str, Any]] = {}
    if games:
        sections["games"] = {
            "interactions": str(games / "interactions.parquet"),
            "items": str(games / "items.parquet"),
            "columns": {"timestamp": "position", "split": "split"},
            "split": "column",
        }
    sections["movielens-100k"] = {
        "format": "recbole",
        "interactions": str(movielens / "ml-100k.inter"),
        "items": str(movielens / "ml-100k.item"),
        "columns": {"rating": "rating", "title": "movie_title"},
        "split": "leave-last-out",
    }
    return sections


def trained_row(settings: Config, folder: Path) -> dict[str, Any]:
    """Train, unless it is done, and rank the test items."""
    outcomes = run(settings, folder, stages_until(settings, "surrogate"), progress=TerminalProgress())
    context = Context("", settings, TerminalProgress(), folder, folder, ("data", "surrogate"))
    model, units = trained(context), test_units(context)
    ranks = {"": target_ranks(model, units, exclude_seen=False), "unseen ": target_ranks(model, units)}
    manifest = outcomes[-1].manifest
    cost = {"epochs": manifest.facts["epochs"], "seconds": manifest.wall_seconds, "users": len(units)}
    return {
        f"{seen}{name}": value
        for seen, target_places in ranks.items()
        for name, value in metrics(target_places).items()
    } | cost


def untrained_rows(settings: Config, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Popularity in the training units, and the user's own items, the latest first, then popularity."""
    context = Context("", settings, TerminalProgress(), folder, folder, ("data",))
    units, train = test_units(context), pl.read_parquet(folder / "data" / "interactions-train.parquet")
    catalogue = Catalogue.of(read_table(folder / "data" / "items.parquet"))
    known = [catalogue.index[item] for item in train["item_id"].to_list()]
    popularity = torch.bincount(torch.tensor(known), minlength=len(catalogue) + 1).double()
    for name, recent in (("popularity", False), ("most recent", True)):
        row: dict[str, Any] = {"epochs": None, "seconds": None, "users": len(units)}
        for prefix, masked in (("", False), ("unseen ", True)):
            values = metrics(simple_ranks(units, popularity, recent=recent, exclude_seen=masked))
            row |= {f"{prefix}{measure}": value for measure, value in values.items()}
        yield name, row


def simple_ranks(units: Units, popularity: Tensor, *, recent: bool, exclude_seen: bool) -> Tensor:
    """Ranks as `target_ranks` gives them; a tie counts half of the tied items as ahead."""
    ranks = []
    for start, end in zip(units.offsets.tolist(), units.offsets[1:].tolist(), strict=False):
        *history, target = units.items[start:end].tolist()
        scores = popularity.clone()
        if recent:
            scores[history] = popularity.max() + torch.arange(1, len(history) + 1).double()
        target_score = scores[target].clone()
        scores[0] = float("-inf")
        if exclude_seen:
            scores[history] = float("-inf")
        scores[target] = target_score
        ranks.append(1 + int((scores > target_score).sum()) + (int((scores == target_score).sum()) - 1) / 2)
    return torch.tensor(ranks, dtype=torch.float64)


def test_units(context: Context) -> Units:
    """Each test user's history and first test item that can be recommended."""
    samples = read_table(context.input("data/samples-test.parquet")).drop_nulls(TARGET)
    return make_units(sequences(samples, read_table(context.input("data/items.parquet"))), whole=False)


def metrics(ranks: Tensor) -> dict[str, float]:
    """Recall and NDCG with the one relevant item."""
    values = {}
    for k in KS:
        inside = ranks <= k
        values[f"recall@{k}"] = float(inside.double().mean())
        values[f"ndcg@{k}"] = float(torch.where(inside, 1 / torch.log2(1 + ranks), 0.0).mean())
    return values


def show(rows: list[dict[str, Any]]) -> None:
    """A row a recommender and data set."""
    measures = ["recall@10", "recall@20", "ndcg@10", "ndcg@20", "unseen recall@10", "unseen ndcg@10"]
    table = Table("data", "recommender", *measures, "epochs", "seconds")
    for row in rows:
        cost = ["" if row[name] is None else f"{row[name]:.0f}" for name in ("epochs", "seconds")]
        table.add_row(row["data"], row["recommender"], *(f"{row[name]:.4f}" for name in measures), *cost)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
