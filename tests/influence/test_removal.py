"""The sign and the size of influence scores against actual removal and retraining."""

from collections.abc import Mapping

import torch
from torch import Tensor

from dealrec.influence import CG, Exact, influence_scores

RIDGE = 0.05
Data = tuple[Tensor, Tensor]


def loss(params: Mapping[str, Tensor], batch: Data) -> Tensor:
    """Logistic loss; the ridge is part of every sample's loss, so the problem is strongly convex."""
    x, y = batch
    weights = params["weights"]
    errors = torch.nn.functional.binary_cross_entropy_with_logits(x @ weights, y, reduction="none")
    return errors + 0.5 * RIDGE * weights.square().sum()


def optimum(data: Data, *, steps: int = 25) -> Tensor:
    """Newton's method with hand-written derivatives, to machine precision."""
    x, y = data
    weights = torch.zeros(x.shape[1], dtype=torch.float64)
    for _ in range(steps):
        chance = (x @ weights).sigmoid()
        gradient = x.T @ (chance - y) / len(y) + RIDGE * weights
        hessian = (x.T * (chance * (1 - chance))) @ x / len(y) + RIDGE * torch.eye(len(weights), dtype=torch.float64)
        weights = weights - torch.linalg.solve(hessian, gradient)
    assert float(gradient.norm()) < 1e-12
    return weights


def drawn(generator: torch.Generator, n: int) -> Data:
    x = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, generator=generator, dtype=torch.float64)
    return x, (x[:, 0] - x[:, 1] + noise > 0).double()


def risk(weights: Tensor, data: Data) -> float:
    return float(loss({"weights": weights}, data).mean())


def actual_changes(train: Data, target: Data) -> Tensor:
    """Risk on `target` after removing each sample and solving again, less the risk before."""
    x, y = train
    before = risk(optimum(train), target)
    others = [torch.arange(len(y)) != i for i in range(len(y))]
    return torch.tensor([risk(optimum((x[keep], y[keep])), target) - before for keep in others], dtype=torch.float64)


def test_scores_predict_the_risk_after_removal() -> None:
    generator = torch.Generator().manual_seed(0)
    train, target = drawn(generator, 60), drawn(generator, 200)
    params = {"weights": optimum(train)}
    scores = influence_scores(loss, params, [train], solver=Exact(), target_batches=[target])
    changes = actual_changes(train, target)
    assert float(torch.corrcoef(torch.stack([scores, changes]))[0, 1]) > 0.99
    slope = float(scores @ changes / (scores @ scores))
    assert 0.9 < slope < 1.25  # 1 to first order; the second order is O(1/n)
    clear = scores.abs() > 0.05 * scores.abs().max()
    assert int(clear.sum()) > 30
    assert torch.equal(scores[clear].sign(), changes[clear].sign())


def test_a_mislabelled_sample_hurts_and_a_typical_one_helps() -> None:
    generator = torch.Generator().manual_seed(1)
    train, target = drawn(generator, 60), drawn(generator, 200)
    x, y = train
    wrong = int((x[:, 0] - x[:, 1]).argmax())
    y = y.clone()
    y[wrong] = 0.0
    params = {"weights": optimum((x, y))}
    scores = influence_scores(loss, params, [(x, y)], solver=CG(), target_batches=[target])
    assert int(scores.argmin()) == wrong
    assert float(scores[wrong]) < 0 < float(scores.max())
