"""How well TIGER recommends, beside popularity, and SASRec where a run directory of benchmarks/surrogates.py is given.

    python -m benchmarks.tiger [--games FOLDER] [--runs runs/tiger] [--surrogates runs/surrogates] [--out tiger.json]

Data, protocol and columns are those of benchmarks/surrogates.py: the target is each user's first test item, the history
all training and validation items, the ranking over the whole catalogue; seen items are not masked, and in the columns
"unseen" they are. TIGER trains on every position of the training sequences; validation NDCG@10 ends it. Titles are
embedded by all-MiniLM-L6-v2 (fetched from the package index), or by --encoder. After each epoch a checkpoint is kept in
the run directory, so that what was interrupted goes on.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import torch
from rich.console import Console
from torch import Tensor

from benchmarks.surrogates import KS, LIMITS, SURROGATES, show, sources, trained_row, untrained_rows
from dealrec.cli.progress import TerminalProgress
from dealrec.columns import ITEM, POSITION, USER, Part
from dealrec.config.files import parse
from dealrec.data.catalogue import Catalogue, sequences
from dealrec.demo.assets import MINILM, fetch
from dealrec.engine.run_directory import read_table
from dealrec.engine.runner import run
from dealrec.recommenders.tiger import (
    Examples,
    SemanticIds,
    embed_texts,
    fit,
    last_positions,
    make_semantic_ids,
    new_model,
    positions,
    quality,
    rank,
    train,
)
from dealrec.recommenders.tiger.files import load, load_checkpoint, load_text_encoder, save, save_checkpoint
from dealrec.recommenders.tiger.training import Checkpoint
from dealrec.stages.pipeline import stages_until

# Small enough for one CPU core; next to untuned. Dropout 0 is twice as fast there. --sizes changes them.
SIZES: dict[str, Any] = {"d_model": 64, "heads": 2, "d_kv": 32, "d_ff": 256, "layers": 2, "dropout": 0.0}
IDS: dict[str, dict[str, Any]] = {
    "movielens-100k": {"codes": 64, "batch_size": 256, "epochs": 200},
    "games": {"codes": 256, "batch_size": 1024, "epochs": 200},
}
BEAMS = 50  # in testing; validation takes 20


def main() -> None:
    """Train what is missing, rank, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=Path)
    parser.add_argument("--only", nargs="*", choices=list(IDS), default=list(IDS))
    parser.add_argument("--runs", type=Path, default=Path("runs/tiger"))
    parser.add_argument("--surrogates", type=Path, help="run directory of benchmarks/surrogates.py")
    parser.add_argument("--encoder", help="text encoder: a directory in Hugging Face format, or a model id")
    parser.add_argument("--max-items", type=int, default=10, help="of a history that TIGER reads")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--patience", type=int, default=6)
    parser.add_argument("--valid-users", type=int, help="that end the training: drawn at random; without it all")
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--sizes", type=json.loads, default={}, help="of the T5, such as '{\"d_model\": 128}'")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for data, section in sources(options.games).items():
        if data in options.only:
            rows += list(recommenders(data, section, options))
    show(rows)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2) + "\n")


def recommenders(data: str, section: dict[str, Any], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for TIGER, the surrogates that have been trained, and popularity."""
    folder = options.runs / data
    settings = parse({"data": section}, base=Path.cwd())
    run(settings, folder, stages_until(settings, "data"), progress=TerminalProgress())
    yield {"data": data, "recommender": "tiger", **tiger_row(data, folder, options)}
    for name, changed in SURROGATES.items():
        own = parse({"data": section, "surrogate": changed | LIMITS}, base=Path.cwd())
        where = (options.surrogates or Path()) / data / name.partition(",")[0] / str(own.surrogate.loss)
        if options.surrogates and name.startswith("sasrec") and (where / "surrogate").is_dir():
            yield {"data": data, "recommender": name, **trained_row(own, where)}
    for name, row in untrained_rows(settings, folder):
        yield {"data": data, "recommender": name, **row}


def tiger_row(data: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train TIGER, unless it is done, and rank the test items."""
    started = time.process_time()
    catalogue = Catalogue.of(read_table(folder / "data" / "items.parquet"))
    path = folder / f"training-{fingerprint(options)}.safetensors"
    home = path.with_suffix("")
    if not home.exists():
        ids = semantic_ids(catalogue, training_sequences(folder, catalogue), options.encoder, **IDS[data])
        model = new_model(ids.vocab_size, **SIZES | options.sizes)
        save(home.with_suffix(".part"), model, ids, catalogue.ids)
        home.with_suffix(".part").rename(home)
    model, ids, items = load(home)  # untrained: the checkpoint holds what has been learnt
    if items != catalogue.ids:
        raise SystemExit(f"{home} has ids of another catalogue: delete it")
    epochs = train(
        model,
        ids,
        positions(training_sequences(folder, catalogue), max_items=options.max_items),
        held_out(folder, "valid", options.max_items, most=options.valid_users),
        learning_rate=options.learning_rate,
        max_epochs=options.epochs,
        patience=options.patience,
        start=load_checkpoint(path) if path.exists() else None,
        keep=lambda checkpoint: kept(path, checkpoint),
    )
    save(home.with_name(f"{home.name}-best"), model, ids, catalogue.ids)
    test = held_out(folder, "test", options.max_items)
    row: dict[str, Any] = {"epochs": len(epochs), "seconds": time.process_time() - started, "users": len(test)}
    for prefix, exclude_seen in (("", False), ("unseen ", True)):
        ranked = rank(model, ids, test, k=max(KS), beams=BEAMS, exclude_seen=exclude_seen)
        row |= {f"{prefix}{measure}": value for measure, value in list_metrics(ranked, test.target_rows).items()}
    return row | {"sizes": SIZES | options.sizes, "ids": ids.sizes, "history": [asdict(epoch) for epoch in epochs]}


def fingerprint(options: argparse.Namespace) -> str:
    """What tells runs of other settings apart, as a part of a file's name."""
    sizes = "-".join(str(value) for value in (SIZES | options.sizes).values())
    encoder = f"-{Path(options.encoder).name}" if options.encoder else ""
    return f"{sizes}-{options.max_items}-{options.learning_rate:g}{encoder}"


def kept(path: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint and say where the training is."""
    save_checkpoint(path, checkpoint)
    epoch = checkpoint.epochs[-1]
    levels = " ".join(f"{loss:.3f}" for loss in epoch.valid_levels)
    Console(stderr=True).print(
        f"epoch {epoch.epoch}: training loss {epoch.train_loss:.4f}, validation loss a level {levels}",
        highlight=False,
        soft_wrap=True,
    )


def semantic_ids(
    catalogue: Catalogue, sequences: Sequence[Sequence[int]], encoder: str | None, **options: Any
) -> SemanticIds:
    """Ids of the whole catalogue from a residual VAE that is fitted to the items of the training part."""
    name = encoder or str(fetch(progress=TerminalProgress(), llm=False, text_encoder=True) / MINILM)
    embeddings = embed_texts(load_text_encoder(name), [catalogue.titles[item] for item in catalogue.ids])
    known = torch.zeros(len(catalogue), dtype=torch.bool)
    known[[row for sequence in sequences for row in sequence]] = True
    model = fit(embeddings[known], **options)
    Console(stderr=True).print(quality(model, embeddings[known]))
    return make_semantic_ids(model.encode(embeddings), codes_per_level=options["codes"], known=known)


def training_sequences(folder: Path, catalogue: Catalogue) -> list[list[int]]:
    """Each user's training items as rows of the catalogue, oldest first."""
    table = pl.read_parquet(folder / "data" / "interactions-train.parquet").sort(USER, POSITION)
    items = table.group_by(USER, maintain_order=True).agg(ITEM)[ITEM].to_list()
    return [[catalogue.index[item] - 1 for item in sequence] for sequence in items]


def held_out(folder: Path, part: Part, max_items: int, *, most: int | None = None) -> Examples:
    """Each user's history and first item of the validation or the test part; at most so many users."""
    samples = read_table(folder / "data" / f"samples-{part}.parquet")
    if most is not None and most < len(samples):
        samples = samples.sample(most, seed=0)
    lists = sequences(samples, read_table(folder / "data" / "items.parquet"))
    return last_positions(lists.list.eval(pl.element() - 1).to_list(), max_items=max_items)


def list_metrics(ranked: Sequence[Sequence[int]], targets: Tensor) -> dict[str, float]:
    """Recall and NDCG of lists with the one relevant item."""
    places = [rows.index(row) if row in rows else math.inf for rows, row in zip(ranked, targets.tolist(), strict=True)]
    metrics = {}
    for k in KS:
        gains = [1 / math.log2(2 + place) for place in places if place < k]
        metrics[f"recall@{k}"], metrics[f"ndcg@{k}"] = len(gains) / len(places), math.fsum(gains) / len(places)
    return metrics


if __name__ == "__main__":
    main()
