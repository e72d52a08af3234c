"""A check that can be computed to the end: logistic regression, each sample removed and the optimum found again."""

import torch
from torch import Tensor

from dealrec.evaluation.correlation import spearman
from dealrec.influence.exact import Exact
from dealrec.influence.hvp import Params
from dealrec.influence.scores import influence_scores

RIDGE = 0.05
Data = tuple[Tensor, Tensor]


def leave_one_out(*, samples: int = 200, seed: int = 0) -> tuple[float, float]:
    """Spearman's correlation between influence and the risk's actual change over all samples, and the slope.

    The slope is that of the actual changes on the scores, through zero; both are 1 to first order.
    """
    generator = torch.Generator().manual_seed(seed)
    train, target = _random_data(generator, samples), _random_data(generator, 5 * samples)
    optimum = _optimum(train)
    scores = influence_scores(_loss, {"weights": optimum}, [train], solver=Exact(), target_batches=[target])
    masks = [torch.arange(samples) != removed for removed in range(samples)]
    risks = torch.stack([_risk(_optimum((train[0][mask], train[1][mask])), target) for mask in masks])
    changes = risks - _risk(optimum, target)
    return spearman(scores.numpy(), changes.numpy()) or 0.0, float(scores @ changes / (scores @ scores))


def _random_data(generator: torch.Generator, n: int) -> Data:
    x = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, generator=generator, dtype=torch.float64)
    return x, (x[:, 0] - x[:, 1] + noise > 0).double()


def _loss(params: Params, batch: Data) -> Tensor:
    x, y = batch
    weights = params["weights"]
    errors = torch.nn.functional.binary_cross_entropy_with_logits(x @ weights, y, reduction="none")
    return errors + 0.5 * RIDGE * weights.square().sum()


def _risk(weights: Tensor, data: Data) -> Tensor:
    return _loss({"weights": weights}, data).mean()


def _optimum(data: Data) -> Tensor:
    """Newton's method; with the ridge the problem is strongly convex."""
    x, y = data
    weights = x.new_zeros(x.shape[1])
    for _ in range(25):
        probabilities = (x @ weights).sigmoid()
        gradient = x.T @ (probabilities - y) / len(y) + RIDGE * weights
        hessian = (x.T * (probabilities * (1 - probabilities))) @ x / len(y) + RIDGE * torch.eye(
            len(weights), dtype=x.dtype
        )
        weights = weights - torch.linalg.solve(hessian, gradient)
    return weights
