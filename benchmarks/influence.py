"""Speed of the influence engine: ratios of two things timed in one run.

    python benchmarks/influence.py [--games FOLDER] [--units 45000] [--threads 2] [--out influence.json]

A SASRec with two blocks of width 64; data drawn with the lengths of Amazon Games (median 5, a long tail, cut at 50), or
Games itself where its folder is given (interactions.parquet with user_id, item_id, position, split). Timed:
- influence of all units, one forward-mode pass, against a loop of per-sample gradients padded to 50 as in the published
  release, against the same loop unpadded, and against a plain forward pass over the same batches, all under binary
  cross-entropy with one negative, as published;
- the cost relative to a forward pass under the default loss (sampled softmax, 64 negatives), on a fifth of the units;
- an epoch of training against the same epoch padded to 50;
- ten times the units, and the memory that they take.
The loops are timed on a part of the units (--loop) and scaled up; all ways must give the same scores. A time is the
fastest of three. The table and the JSON hold the ratios.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from dealrec.engine.measure import Meter
from dealrec.influence import directional_scores
from dealrec.influence.hvp import mean_gradient
from dealrec.surrogate import (
    Batches,
    LossName,
    Negatives,
    SASRec,
    Units,
    make_units,
    per_sample_loss,
    plan,
    plan_by_positions,
    unit_losses,
)
from dealrec.surrogate.units import Batch, batch

LENGTH = 50
POSITIONS = 4096  # of a batch, as the default setting has it
DEFAULT_NEGATIVES = 64
T = TypeVar("T")
Loss = Callable[[SASRec, Batch], Tensor]


def main() -> None:
    """Time everything and show the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=Path)
    parser.add_argument("--units", type=int, default=45_000, help="drawn units, where --games is not given")
    parser.add_argument("--loop", type=int, default=300, help="units that the loops are timed on")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    items, units = games_units(options.games) if options.games else (17_332, drawn_units(options.units, 17_332))
    model = SASRec(items, max_length=LENGTH).eval()
    negatives = Negatives(items, 1, 0)
    result: dict[str, Any] = {
        "units": len(units),
        "items": items,
        "threads": options.threads,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    for name, prefix in (("last block", "layers.1."), ("all parameters", "")):
        result[name] = scoring(model, units, negatives, prefix=prefix, loop=options.loop)
    result["default loss"] = default_loss(model, units.take(torch.arange(0, len(units), 5)))
    result["epoch"] = epochs(model, units, negatives)
    result["growth"] = growth(model, items)
    show(result)
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


def scoring(model: SASRec, units: Units, negatives: Negatives, *, prefix: str, loop: int) -> dict[str, float]:
    """Scores of all units against the loops and against a forward pass."""
    model.eval()
    batches = Batches(units, negatives, plan_by_positions(units, positions=POSITIONS))
    loss = per_sample_loss(model)
    params = {name: value.detach() for name, value in model.named_parameters() if name.startswith(prefix)}
    vector = mean_gradient(loss, params, batches)
    forward = timed(lambda: plain_forward(model, batches))
    fast_scores, fast = timed_result(lambda: batches.restore_order(directional_scores(loss, params, batches, vector)))
    some = list(range(0, len(units), max(1, len(units) // loop)))
    scale = len(units) / len(some)
    unpadded_scores, unpadded = timed_result(
        lambda: looped(model, units, negatives, some, vector, pad=False, loss=unit_losses)
    )
    padded_scores, padded = timed_result(
        lambda: looped(model, units, negatives, some, vector, pad=True, loss=published_losses)
    )
    largest = fast_scores.abs().max()
    return {
        "parameters": sum(value.numel() for value in params.values()),
        "times faster than the loop padded to 50": padded * scale / fast,
        "times faster than the loop unpadded": unpadded * scale / fast,
        "cost relative to a forward pass": fast / forward,
        "largest difference, padded": float((padded_scores - fast_scores[some]).abs().max() / largest),
        "largest difference, unpadded": float((unpadded_scores - fast_scores[some]).abs().max() / largest),
    }


def default_loss(model: SASRec, units: Units) -> dict[str, float]:
    """Scores under sampled softmax, which is the default, against a forward pass with the same loss."""
    negatives = Negatives(model.n_items, DEFAULT_NEGATIVES, 0, share=True)
    batches = Batches(units, negatives, plan_by_positions(units, positions=POSITIONS))
    loss, costs = per_sample_loss(model, loss="sampled-softmax"), {}
    forward = timed(lambda: plain_forward(model, batches, loss="sampled-softmax"))
    for name, prefix in (("last block", "layers.1."), ("all parameters", "")):
        params = {key: value.detach() for key, value in model.named_parameters() if key.startswith(prefix)}
        vector = mean_gradient(loss, params, batches)
        seconds = timed(partial(directional_scores, loss, params, batches, vector))
        costs[f"{name}: cost relative to a forward pass"] = seconds / forward
    return costs


def looped(
    model: SASRec,
    units: Units,
    negatives: Negatives,
    some: list[int],
    vector: dict[str, Tensor],
    *,
    pad: bool,
    loss: Loss,
) -> Tensor:
    """A backward pass a unit, its gradient times the vector."""
    parameters = dict(model.named_parameters())
    leaves = [parameters[name] for name in vector]
    scores = []
    for index in some:
        inputs = batch(units, negatives, torch.tensor([index]))
        gradients = torch.autograd.grad(
            loss(model, padded(inputs) if pad else inputs)[0], leaves, materialize_grads=True
        )
        scores.append(sum((g * v).sum() for g, v in zip(gradients, vector.values(), strict=True)))
    return torch.stack([torch.as_tensor(score) for score in scores]).detach()


def published_losses(model: SASRec, inputs: Batch) -> Tensor:
    """`unit_losses` with every position computed, padding too, and masked afterwards."""
    states = model(inputs["items"])
    vectors = model.item_embedding.weight
    positive = (states * functional.embedding(inputs["targets"], vectors)).sum(2)
    negative = (states.unsqueeze(2) * functional.embedding(inputs["negatives"], vectors)).sum(3)
    losses = functional.softplus(-positive) + functional.softplus(negative).mean(2)
    return (losses * inputs["weights"]).sum(1)


def padded(inputs: Batch) -> Batch:
    """The batch padded on the right to 50 positions."""
    short = LENGTH - inputs["items"].shape[1]
    sides = {name: (0, 0, 0, short) if value.dim() == 3 else (0, short) for name, value in inputs.items()}
    return {name: functional.pad(value, sides[name]) for name, value in inputs.items()}


def epochs(model: SASRec, units: Units, negatives: Negatives) -> dict[str, float]:
    """An epoch of training in batches of like length, against one padded to 50."""

    def epoch(units: Units, *, pad: bool, loss: Loss) -> None:
        model.train()
        optimizer = torch.optim.Adam(model.parameters())
        for index in plan(units, batch_size=256, generator=torch.Generator().manual_seed(0)):
            inputs = batch(units, negatives, index)
            optimizer.zero_grad()
            loss(model, padded(inputs) if pad else inputs).mean().backward()
            optimizer.step()

    ours = min(timed(lambda: epoch(units, pad=False, loss=unit_losses), repeats=1) for _ in range(2))
    theirs = timed(lambda: epoch(units, pad=True, loss=published_losses), repeats=1)
    return {"times faster than padded to 50": theirs / ours}


def growth(model: SASRec, items: int) -> dict[str, float]:
    """Ten times the units: the time and the memory of scoring them."""
    costs = {}
    for n in (4_000, 40_000):
        units = drawn_units(n, items)
        negatives = Negatives(items, 1, 0)
        batches = Batches(units, negatives, plan_by_positions(units, positions=POSITIONS))
        loss = per_sample_loss(model)
        params = {name: value.detach() for name, value in model.named_parameters() if name.startswith("layers.1.")}
        vector = mean_gradient(loss, params, batches)
        work = partial(directional_scores, loss, params, batches, vector)
        seconds = timed(work)
        meter = Meter()
        work()
        costs[n] = (seconds, meter.read().peak_memory_bytes)
    return {
        "time of ten times the units": costs[40_000][0] / costs[4_000][0],
        "peak memory of ten times the units": costs[40_000][1] / costs[4_000][1],
    }


def drawn_units(n: int, items: int) -> Units:
    """Sequences with the length distribution of Games: log-normal around 5, between 2 and 51."""
    generator = torch.Generator().manual_seed(1)
    lengths = (torch.randn(n, generator=generator) * 0.8 + 1.6).exp().round().clamp(2, LENGTH + 1).long().tolist()
    return make_units([torch.randint(1, items + 1, (m,), generator=generator).tolist() for m in lengths], whole=True)


def games_units(folder: Path) -> tuple[int, Units]:
    """The training sequences of Games, their last 51 items."""
    table = pl.read_parquet(folder / "interactions.parquet").filter(pl.col("split") == "train")
    codes = table.sort("user_id", "position").with_columns(pl.col("item_id").rank("dense").cast(pl.Int64))
    sequences = codes.group_by("user_id", maintain_order=True).agg(pl.col("item_id").tail(LENGTH + 1))["item_id"]
    return int(codes["item_id"].max()), make_units([s for s in sequences.to_list() if len(s) > 1], whole=True)  # type: ignore[arg-type]


def plain_forward(model: SASRec, batches: Batches, *, loss: LossName = "bce") -> None:
    """The losses alone."""
    with torch.no_grad():
        for inputs in batches:
            unit_losses(model, inputs, loss=loss)


def timed(work: Callable[[], object], *, repeats: int = 3) -> float:
    """Seconds of the fastest."""
    return timed_result(work, repeats=repeats)[1]


def timed_result(work: Callable[[], T], *, repeats: int = 3) -> tuple[T, float]:
    """The result and the seconds of the fastest."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return result, min(seconds)


def show(result: dict[str, Any]) -> None:
    """Every ratio in a row."""
    table = Table("what", "ratio", "measured", title=f"{result['units']:,} units, {result['threads']} threads")
    for part in ("last block", "all parameters", "default loss", "epoch", "growth"):
        for name, value in result[part].items():
            table.add_row(part, name, f"{value:.3g}" if value < 1000 else f"{value:,.0f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
