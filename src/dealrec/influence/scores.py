"""Influence scores: how much the risk would rise if a sample were removed (Eq. 5-11 of DEALRec)."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from dealrec.influence.hvp import Batch, Params, PerSampleLoss, directional_scores, mean_gradient
from dealrec.influence.solvers import Solution, Solver, inverse_hvp


@dataclass(frozen=True)
class Influence:
    """scores: [n], positive = the sample helps. solution: of (H + damping I) x = mean target gradient."""

    scores: Tensor
    solution: Solution


def influence(
    per_sample_loss: PerSampleLoss,
    params: Params,
    batches: Iterable[Batch],
    *,
    solver: Solver,
    target_batches: Iterable[Batch] | None = None,
) -> Influence:
    """`influence_scores` together with the solution that they rest on."""
    target = mean_gradient(per_sample_loss, params, batches if target_batches is None else target_batches)
    solution = inverse_hvp(per_sample_loss, params, batches, target, solver=solver)
    products = directional_scores(per_sample_loss, params, batches, solution.vector)
    return Influence(products / len(products), solution)


def influence_scores(
    per_sample_loss: PerSampleLoss,
    params: Params,
    batches: Iterable[Batch],
    *,
    solver: Solver,
    target_batches: Iterable[Batch] | None = None,
) -> Tensor:
    """I(s) = (1/n) grad L(s)^T (H + damping I)^-1 g for every sample s: [n], in the order of `batches`.

    g is the gradient of the mean loss over `target_batches`, or over `batches` where those are None (the
    paper's choice). H is the Hessian of the mean loss over `batches`. In units of that loss: to first order,
    what the mean target loss gains when s is removed and the model trained again.
    **Positive = removing s raises the risk = s helps.**

    per_sample_loss: (params, batch) -> [batch]. batches: re-iterable; n counts their samples.
    Raises NotConverged unless the solver allows it, NonFinite on NaN or infinity.

    >>> import torch
    >>> from dealrec.influence import Exact, influence_scores
    >>> x = torch.tensor([1.0, 2.0, 3.0, 10.0], dtype=torch.float64)
    >>> def loss(params, batch):  # the mean's estimator: squared distance
    ...     return 0.5 * (params["mean"] - batch) ** 2
    >>> at = {"mean": x.mean(0, keepdim=True)}
    >>> held_out = [torch.tensor([3.0], dtype=torch.float64)]
    >>> scores = influence_scores(loss, at, [x[:3], x[3:]], solver=Exact(), target_batches=held_out)
    >>> [round(float(s), 4) for s in scores]  # (mean - x_i) (mean - 3) / 4: the outlier 10 hurts
    [0.75, 0.5, 0.25, -1.5]
    """
    return influence(per_sample_loss, params, batches, solver=solver, target_batches=target_batches).scores
