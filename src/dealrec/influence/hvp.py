"""Derivatives of the mean loss: gradients, Hessian-vector products, directional derivatives.

A model that can be scored is a function of named parameters, `PerSampleLoss`, and a re-iterable of
batches. Means weigh samples, never batches, so that no result depends on how samples are batched.
Attention in the function must be composed of plain operations: fused kernels have no forward mode.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from dealrec.errors import NonFinite

Params = Mapping[str, Tensor]
Batch = Any
PerSampleLoss = Callable[[Params, Batch], Tensor]  # (params, batch) -> [batch]
Vector = dict[str, Tensor]  # one tensor per parameter, of its shape


def mean_gradient(per_sample_loss: PerSampleLoss, params: Params, batches: Iterable[Batch]) -> Vector:
    """Gradient of the mean loss over all samples of `batches`.

    Raises NonFinite if a loss or the gradient is NaN or infinite.
    """
    total = {name: torch.zeros_like(value) for name, value in params.items()}
    count = 0

    def total_loss(at: Params, batch: Batch) -> tuple[Tensor, Tensor]:
        losses = per_sample_loss(at, batch)
        return losses.sum(), losses

    for batch in batches:
        with torch.no_grad():  # no graph of parameters that the caller's function may hold on to
            gradient, losses = torch.func.grad(total_loss, has_aux=True)(dict(params), batch)
        require_finite(losses, "a loss", first=count)
        total = {name: value + gradient[name] for name, value in total.items()}
        count += len(losses)
    if count == 0:
        raise ValueError("batches is empty: there is no sample to take the mean over")
    require_finite_vector(total, "the gradient of the mean loss")
    return {name: value / count for name, value in total.items()}


def hessian_vector(
    per_sample_loss: PerSampleLoss, params: Params, batches: Iterable[Batch]
) -> Callable[[Vector], Vector]:
    """Fix the point; return `v -> H v`, H the Hessian of the mean loss over all samples of `batches`.

    One batch at a time, so memory does not grow with the number of samples. The product raises NonFinite if it
    comes to NaN or infinity.
    """
    at = dict(params)

    def product(vector: Vector) -> Vector:
        total = {name: torch.zeros_like(value) for name, value in at.items()}
        count = 0
        for batch in batches:
            part, size = batch_hessian_vector(per_sample_loss, at, batch, vector)
            total = {name: value + part[name] for name, value in total.items()}
            count += size
        if count == 0:
            raise ValueError("batches is empty, or cannot be iterated over more than once")
        require_finite_vector(total, "a Hessian-vector product")
        return {name: value / count for name, value in total.items()}

    return product


def batch_hessian_vector(
    per_sample_loss: PerSampleLoss, params: Params, batch: Batch, vector: Vector
) -> tuple[Vector, int]:
    """H v of the **sum** of one batch's losses, and the number of its samples.

    Reverse over reverse: the gradient of gradient^T v. It takes a third less time here than forward over reverse.
    """
    at = {name: value.detach().requires_grad_() for name, value in params.items()}
    leaves = list(at.values())
    with torch.enable_grad():
        losses = per_sample_loss(at, batch)
        gradients = torch.autograd.grad(losses.sum(), leaves, create_graph=True, materialize_grads=True)
    pairs = zip(gradients, vector.values(), strict=True)
    curved = [(gradient, part) for gradient, part in pairs if gradient.requires_grad]  # the others are constant
    if not curved:
        return {name: torch.zeros_like(value) for name, value in params.items()}, len(losses)
    outputs, directions = zip(*curved, strict=True)
    products = torch.autograd.grad(outputs, leaves, directions, materialize_grads=True)
    return dict(zip(at, products, strict=True)), len(losses)


def directional_scores(
    per_sample_loss: PerSampleLoss, params: Params, batches: Iterable[Batch], vector: Mapping[str, Tensor]
) -> Tensor:
    """grad L(s)^T vector for every sample s, in one forward-mode pass: [n], in the order of the batches.

    The product of each sample's gradient with one fixed vector is a directional derivative, so no
    per-sample gradient is ever formed. Raises NonFinite if one of them is NaN or infinite.
    """
    scores: list[Tensor] = []
    count = 0
    with torch.no_grad(), forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(value.detach(), vector[name]) for name, value in params.items()}
        for batch in batches:
            losses, derivative = forward_ad.unpack_dual(per_sample_loss(duals, batch))
            derivative = torch.zeros_like(losses) if derivative is None else derivative
            require_finite(derivative, "a directional derivative", first=count)
            scores.append(derivative)
            count += len(derivative)
    if not scores:
        raise ValueError("batches is empty: there is no sample to score")
    return torch.cat(scores)


def require_finite(values: Tensor, what: str, *, first: int = 0) -> None:
    """Raise NonFinite, with the positions of the first bad samples, unless all values are finite."""
    bad = (~torch.isfinite(values)).nonzero().flatten()
    if len(bad):
        where = ", ".join(str(first + int(i)) for i in bad[:5])
        raise NonFinite(
            f"influence: {what} is NaN or infinite at sample positions {where} ({len(bad)} in this batch)",
            "Check the model's weights for NaN, and lower the learning rate if its training diverged.",
            positions=[first + int(i) for i in bad],
        )


def require_finite_vector(vector: Vector, what: str) -> None:
    """Raise NonFinite unless all entries are finite."""
    if not all(bool(torch.isfinite(value).all()) for value in vector.values()):
        raise NonFinite(
            f"influence: {what} is NaN or infinite",
            "Check the model's weights and the batches for NaN, and the loss for points without a derivative.",
        )


def dot(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> float:
    """Inner product over all parameters, summed in float64."""
    return math.fsum(float((left[name].double() * right[name].double()).sum()) for name in left)


def norm(vector: Mapping[str, Tensor]) -> float:
    """L2 norm over all parameters."""
    return math.sqrt(dot(vector, vector))


def combine(a: float, left: Mapping[str, Tensor], b: float, right: Mapping[str, Tensor]) -> Vector:
    """The linear combination a left + b right."""
    return {name: a * left[name] + b * right[name] for name in left}
