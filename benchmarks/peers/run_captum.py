"""captum's scores. METHOD: arnoldi.

Its batched per-sample gradients are for linear layers only, so the scores are about those of the last block. Its
Hessian is a sum over the samples, so that the damping is n times ours. The held-out vectors are summed by captum.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from captum.influence._core.arnoldi_influence_function import (  # type: ignore[import-not-found]
    ArnoldiInfluenceFunction,
)
from model import LINEAR, unit_losses  # type: ignore[import-not-found]
from torch import Tensor
from torch.utils.data import DataLoader
from workload import Clock, Part, Scored, Task, batches, rows, run  # type: ignore[import-not-found]

BATCH = 128


class SummedLoss:
    """The sum of the units' losses, as captum wants it for batched per-sample gradients."""

    reduction = "sum"

    def __call__(self, logits: Tensor, weights: Tensor) -> Tensor:
        """Logits [B, T, 2], weights [B, T] -> scalar."""
        total: Tensor = unit_losses(logits, weights).sum()
        return total


def score(task: Task, method: str) -> Scored:
    """Scores of the parameters of the last block's linear layers."""
    assert method == "arnoldi"
    n, held_out = len(task.train["items"]), len(task.held_out["items"])
    model = task.model(trainable=task.state)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "model.pt"
        torch.save(task.state, checkpoint)
        clock = Clock()
        influence = ArnoldiInfluenceFunction(
            model,
            loader(task.train),
            str(checkpoint),
            layers=LINEAR,
            loss_fn=SummedLoss(),
            sample_wise_grads_per_batch=True,
            projection_dim=task.settings["rank"],
            arnoldi_dim=task.settings["arnoldi_steps"],
            hessian_reg=task.settings["linear"]["damping"] * n,
        )
    tests = influence.compute_intermediate_quantities(loader(task.held_out), aggregate=True, test=True)
    setup = clock.read()
    train = influence.compute_intermediate_quantities(influence.train_dataloader)
    scores = (train @ tests.T).squeeze(1) / held_out
    return scores, setup, clock.read(), {"iterations": task.settings["arnoldi_steps"], "rank": len(influence.R)}


def loader(part: Part) -> "DataLoader[Any]":
    """Batches of (items, candidates, weights), each as wide as its longest."""
    return DataLoader([rows(batch) for batch in batches(part, BATCH)], batch_size=None)  # type: ignore[arg-type]


if __name__ == "__main__":
    run(score, package="captum")
