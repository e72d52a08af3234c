"""Draws the task that all libraries are given: sequences, a trained model, a damping. Runs in dealrec's environment.

python prepare.py FOLDER '{"units": 1000, "held_out": 200, "items": 17000, "seed": 0, ...}'
"""

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl
import torch
from model import LENGTH, SASRec, unit_losses  # type: ignore[import-not-found]
from run_dealrec import per_sample_loss  # type: ignore[import-not-found]
from torch import Tensor
from workload import Part, Task, batches  # type: ignore[import-not-found]

from dealrec.influence import CG, influence
from dealrec.influence.hvp import hessian_vector
from dealrec.influence.scores import Influence
from dealrec.influence.solvers import default_damping
from dealrec.influence.spectrum import estimate_spectrum


def main() -> None:
    """Write task.pt and settings.json to the folder."""
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(settings["threads"])
    generator = torch.Generator().manual_seed(settings["seed"])
    needed = settings["units"] + settings["held_out"]
    if settings["games"]:
        sequences, settings["items"] = games_sequences(Path(settings["games"]), needed, generator)
    else:
        sequences = drawn_sequences(needed, settings["items"], generator)
    train = unit_part(sequences[: settings["units"]], settings["items"], generator)
    held_out = unit_part(sequences[settings["units"] :], settings["items"], generator)
    settings["mean_length"] = float((train["weights"] > 0).sum(1).double().mean())
    task = Task(train, held_out, trained(train, settings), settings)
    for which in ("block", "linear"):
        settings[which], reference = spectrum_settings(task, which)
        torch.save(reference, folder / f"reference-{which}.pt")
    torch.save({"train": train, "held_out": held_out, "state": task.state}, folder / "task.pt")
    (folder / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")


def drawn_sequences(n: int, items: int, generator: torch.Generator) -> list[list[int]]:
    """Sequences with the length distribution of Games: log-normal around 5, between 2 and 51."""
    lengths = (torch.randn(n, generator=generator) * 0.8 + 1.6).exp().round().clamp(2, LENGTH + 1).long().tolist()
    return [torch.randint(1, items + 1, (length,), generator=generator).tolist() for length in lengths]


def games_sequences(path: Path, n: int, generator: torch.Generator) -> tuple[list[list[int]], int]:
    """n users' training sequences, at random, and the number of items, from a table with a split column."""
    table = pl.read_parquet(path).filter(pl.col("split") == "train").sort("user_id", "position")
    codes = table.with_columns(pl.col("item_id").rank("dense").cast(pl.Int64).alias("code"))
    lists = codes.group_by("user_id", maintain_order=True).agg(pl.col("code").tail(LENGTH + 1))["code"].to_list()
    sequences = [sequence for sequence in lists if len(sequence) > 1]
    if len(sequences) < n:
        raise ValueError(f"{path} holds {len(sequences)} users with two items or more, {n} are needed")
    order = torch.randperm(len(sequences), generator=generator)[:n].tolist()
    return [sequences[i] for i in order], int(codes["code"].max())  # type: ignore[arg-type]


def unit_part(sequences: list[list[int]], n_items: int, generator: torch.Generator) -> Part:
    """Padded units, the longest first, with one negative a position."""
    ordered = sorted(sequences, key=len, reverse=True)
    padded = torch.zeros(len(ordered), LENGTH + 1, dtype=torch.int64)
    for row, sequence in zip(padded, ordered, strict=True):
        row[: len(sequence)] = torch.tensor(sequence)
    items, targets = padded[:, :-1], padded[:, 1:]
    real = targets > 0
    negatives = torch.randint(1, n_items + 1, targets.shape, generator=generator)
    candidates = torch.stack([targets, torch.where(real, negatives, 0)], dim=2)
    return {
        "items": torch.where(real, items, 0),
        "candidates": candidates,
        "weights": real / real.sum(1, keepdim=True),
    }


def trained(train: Part, settings: dict[str, Any]) -> dict[str, Tensor]:
    """A few epochs of Adam, so that gradients and curvature are those of a model that has learnt something."""
    torch.manual_seed(settings["seed"])
    model = SASRec(settings["items"])
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(settings["epochs"]):
        for batch in batches(train, 128):
            optimiser.zero_grad()
            unit_losses(model(batch["items"], batch["candidates"]), batch["weights"]).mean().backward()
            optimiser.step()
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def spectrum_settings(task: Task, which: str) -> tuple[dict[str, Any], Tensor]:
    """Damping, by dealrec's rule; the steps that CG needs with it; scores a hundred times more exact.

    The spectrum is estimated more closely than dealrec does by default, since no peer checks for negative curvature.
    """
    parameters, loss, tol = task.chosen(which), per_sample_loss(task.model()), task.settings["tol"]
    train, held_out = batches(task.train, 128), batches(task.held_out, 128)
    damping = default_damping(estimate_spectrum(hessian_vector(loss, parameters, train), parameters, steps=60))

    def influence_at(tol: float) -> Influence:
        return influence(loss, parameters, train, solver=CG(damping=damping, tol=tol), target_batches=held_out)

    count = sum(value.numel() for value in parameters.values())
    settings = {"damping": damping, "iterations": influence_at(tol).solution.iterations, "parameters": count}
    return settings, influence_at(tol / 100).scores.double()


if __name__ == "__main__":
    main()
