"""Scores of all samples: one forward-mode pass against the loop of per-sample gradients, in one run.

    python benchmarks/influence.py [--units 4000] [--items 17000] [--threads 2] [--out influence.json]

The data are drawn with the lengths of Amazon Games (median 5, a long tail, cut at 50). The loop is timed on a part of
the units (--loop) and scaled up; both ways must give the same scores. Ratios go to stdout as JSON and to --out.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from dealrec.influence import directional_scores
from dealrec.influence.hvp import mean_gradient
from dealrec.surrogate import Batches, SASRec, Units, draw_negatives, make_units, per_sample_loss, plan, unit_losses
from dealrec.surrogate.units import Batch, batch

LENGTH = 50
T = TypeVar("T")


def main() -> None:
    """Time both ways and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=4000)
    parser.add_argument("--loop", type=int, default=200)
    parser.add_argument("--items", type=int, default=17_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = SASRec(options.items, max_length=LENGTH).eval()
    units = drawn_units(options.units, options.items)
    negatives = draw_negatives(units, n_items=options.items, per_position=1, seed=0)
    batches = Batches(units, negatives, plan(units, batch_size=512))
    loss = per_sample_loss(model)
    params = {name: value.detach() for name, value in model.named_parameters() if name.startswith("layers.1.")}
    vector = mean_gradient(loss, params, batches)

    forward = timed(lambda: plain_forward(model, batches))
    fast_scores, fast = timed_result(lambda: batches.restore_order(directional_scores(loss, params, batches, vector)))
    some = list(range(0, options.units, max(1, options.units // options.loop)))
    scale = options.units / len(some)
    unpadded_scores, unpadded = timed_result(lambda: loop(model, units, negatives, some, vector, pad=False))
    padded_scores, padded = timed_result(lambda: loop(model, units, negatives, some, vector, pad=True))
    largest = fast_scores.abs().max()
    result = {
        "units": options.units,
        "loop_units": len(some),
        "threads": options.threads,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "speedup_over_padded_loop": padded * scale / fast,
        "speedup_over_unpadded_loop": unpadded * scale / fast,
        "cost_relative_to_forward": fast / forward,
        "largest_difference_padded": float((padded_scores - fast_scores[some]).abs().max() / largest),
        "largest_difference_unpadded": float((unpadded_scores - fast_scores[some]).abs().max() / largest),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def drawn_units(n: int, items: int) -> Units:
    """Sequences with the length distribution of Games: log-normal around 5, between 2 and 51."""
    generator = torch.Generator().manual_seed(1)
    lengths = (torch.randn(n, generator=generator) * 0.8 + 1.6).exp().round().clamp(2, LENGTH + 1).long().tolist()
    return make_units([torch.randint(1, items + 1, (m,), generator=generator).tolist() for m in lengths], whole=True)


def loop(
    model: SASRec, units: Units, negatives: Tensor, some: list[int], vector: dict[str, Tensor], *, pad: bool
) -> Tensor:
    """As published: a backward pass a sample, its gradient times the vector."""
    chosen = dict(model.named_parameters())
    scores = []
    for index in some:
        made = batch(units, negatives, torch.tensor([index]))
        gradients = torch.autograd.grad(
            unit_losses(model, padded(made) if pad else made)[0], [chosen[k] for k in vector]
        )
        scores.append(sum((g * v).sum() for g, v in zip(gradients, vector.values(), strict=True)))
    return torch.stack([torch.as_tensor(score) for score in scores]).detach()


def padded(made: Batch) -> Batch:
    """The batch padded on the right to 50 positions."""
    short = LENGTH - made["items"].shape[1]
    sides = {name: (0, 0, 0, short) if value.dim() == 3 else (0, short) for name, value in made.items()}
    return {name: torch.nn.functional.pad(value, sides[name]) for name, value in made.items()}


def plain_forward(model: SASRec, batches: Batches) -> None:
    """The losses alone."""
    with torch.no_grad():
        for made in batches:
            unit_losses(model, made)


def timed(work: Callable[[], object]) -> float:
    """Seconds of the fastest of three."""
    return timed_result(work)[1]


def timed_result(work: Callable[[], T]) -> tuple[T, float]:
    """The result and the seconds of the fastest of three."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - start)
    return found, min(seconds)


if __name__ == "__main__":
    main()
