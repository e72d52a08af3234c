"""pyDVL's scores. METHOD: cg.

The held-out units enter as one sample, whose loss is their mean, since it would solve once a sample. Its Hessian is
the mean over batches, so that all have the same number of units; each is as wide as its longest. Its stopping rule
compares the residual with rtol^2 times one entry of the right side, so it is given dealrec's number of steps.
"""

import torch
from model import unit_losses  # type: ignore[import-not-found]
from pydvl.influence.torch import CgInfluence  # type: ignore[import-not-found]
from torch import Tensor, nn
from torch.utils.data import DataLoader
from workload import Clock, Part, Scored, Task, batches, run, trimmed  # type: ignore[import-not-found]

BATCH = 128


class Packed(nn.Module):
    """The model on one tensor, as pyDVL wants it: items and candidates [..., T, 3] -> logits [N, T, 2]."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, packed: Tensor) -> Tensor:
        """Leading dimensions are merged."""
        flat = packed.flatten(0, -3)
        logits: Tensor = self.inner(flat[..., 0], flat[..., 1:])
        return logits


def score(task: Task, method: str) -> Scored:
    """Scores of the last block's parameters."""
    settings, n = task.settings["block"], len(task.train["items"])
    assert method == "cg"
    size = max(divisor for divisor in range(1, BATCH + 1) if n % divisor == 0)
    train = [pair(part) for part in batches(task.train, size)]
    model = Packed(task.model(trainable=task.chosen("block")))
    influence = CgInfluence(
        model,
        lambda logits, weights: unit_losses(logits, weights.flatten(0, -2)).mean(),
        regularization=settings["damping"],
        maxiter=settings["iterations"],
        warn_on_max_iteration=False,
    )
    clock = Clock()
    influence = influence.fit(DataLoader(train, batch_size=None))  # type: ignore[arg-type]
    x, y = pair(trimmed(task.held_out))
    factors = influence.influence_factors(x.unsqueeze(0), y.unsqueeze(0))
    setup = clock.read()
    parts = [influence.influences_from_factors(factors, x, y)[0].detach() for x, y in train]
    return torch.cat(parts) / n, setup, clock.read(), {"iterations": settings["iterations"], "batch": size}


def pair(part: Part) -> tuple[Tensor, Tensor]:
    """Packed items and candidates [B, T, 3], weights [B, T]."""
    return torch.cat([part["items"].unsqueeze(2), part["candidates"]], dim=2), part["weights"]


if __name__ == "__main__":
    run(score, package="pydvl")
