"""Gauss-Newton in eigenvalue-corrected Kronecker factors (George et al., 2018; Grosse et al., 2023)."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dealrec.errors import ModelError, NotConverged
from dealrec.influence.hvp import (
    Batch,
    Params,
    PerSampleLoss,
    Vector,
    combine,
    hessian_vector,
    norm,
    require_finite_vector,
)
from dealrec.influence.layers import Block, blocks_of, layer_gradients
from dealrec.influence.solvers import (
    MIN_DAMPING,
    PRODUCT_VECTORS,
    Solution,
    Solve,
    relative_residual,
    require_converged,
    vector_bytes,
)

MEAN_SHARE = 0.1  # of the mean eigenvalue, the default damping of Grosse et al.


@dataclass(frozen=True, kw_only=True)
class EKFAC:
    """(G + damping I)^-1 v in closed form, G an approximation of the Gauss-Newton matrix; always positive definite.

    G is block diagonal, one block a layer. A linear layer's is Q diag(Lambda) Q^T with Q = Q_S (x) Q_A, the
    eigenvectors of the second moments of the gradients at its outputs and of its inputs, and Lambda the mean square
    of the samples' gradients in that basis. A LayerNorm's is diagonal. It takes two passes over the data per loss,
    and no iteration.

    module: holds every parameter in an nn.Linear or nn.LayerNorm that the losses call once, under the same names.
    pseudo_losses: [batch] losses, as `per_sample_loss`, whose per-sample gradients' outer products have the
    Gauss-Newton matrix as their mean, over samples and losses. For a log-likelihood, that is the loss with labels
    drawn from the model's own prediction: the same labels at each call. For a squared error of K outputs, the K
    losses sqrt(K) output_k. None: the loss itself, which makes G the empirical Fisher matrix, a poorer stand-in.
    damping None: a tenth of the mean of all Lambda (Grosse et al. take each layer's own mean; here it is one number).

    The residual of its Solution is the one of the true H, as for all solvers, and can be large: how far G is from H.
    It is no measure of convergence, so `converged` is True. Judge by the scores' rank correlation with those of CG.
    """

    module: nn.Module
    pseudo_losses: Sequence[PerSampleLoss] | None = None
    damping: float | None = None

    def prepare(self, per_sample_loss: PerSampleLoss, params: Params, batches: Iterable[Batch]) -> Solve:
        """Fit the factors; raise ModelError where the module or a parameter does not suit, NonFinite on NaN."""
        start = time.perf_counter()
        losses = [per_sample_loss] if self.pseudo_losses is None else self.pseudo_losses
        if not losses:
            raise ValueError("pseudo_losses is empty: leave it None for the empirical Fisher matrix")
        blocks = blocks_of(self.module, params)
        eigenvalues = fit(blocks, losses, params, batches)
        damping = self._damping_of(eigenvalues)
        lowest = min(float(values.min()) for values in eigenvalues)
        if not lowest + damping > 0:
            raise NotConverged(
                f"influence: the smallest eigenvalue of EKFAC is {lowest:.3g}, and damping {damping:.3g}",
                "Set a positive damping, or leave it unset.",
            )
        product = hessian_vector(per_sample_loss, params, batches)
        setup = time.perf_counter() - start

        def solve(vector: Vector) -> Solution:
            start = time.perf_counter()
            x: Vector = {}
            for block, values in zip(blocks, eigenvalues, strict=True):
                x |= block.restore(block.rotate(vector) / (values + damping).to(vector[block.names[0]].dtype))
            x = {name: x[name] for name in vector}
            residual = relative_residual(combine(1.0, product(x), damping, x), vector)
            seconds = setup + time.perf_counter() - start
            solution = Solution(x, residual, 2 * len(losses), seconds, True, damping)
            return require_converged(solution, math.inf, allow=True, remedy="Raise damping.")

        return solve

    def memory(self, params: Params) -> int:
        """Covariances and eigenvalues in float64, eigenvectors, and a few vectors.

        With one batch's graph come its per-sample gradients of one layer at a time.
        """
        squares = sum(block.basis_numbers() for block in blocks_of(self.module, params))
        numbers = sum(value.numel() for value in params.values())
        return 8 * (2 * squares + 2 * numbers) + (2 + PRODUCT_VECTORS) * vector_bytes(params)

    def _damping_of(self, eigenvalues: Sequence[Tensor]) -> float:
        if self.damping is not None:
            return self.damping
        total = sum(float(values.sum()) for values in eigenvalues)
        return max(MEAN_SHARE * total / sum(values.numel() for values in eigenvalues), MIN_DAMPING)


def fit(
    blocks: Sequence[Block], losses: Sequence[PerSampleLoss], params: Params, batches: Iterable[Batch]
) -> list[Tensor]:
    """Settle the blocks' bases; return each one's eigenvalues, the mean square of the gradients in the basis: float64.

    Raises NonFinite on NaN or infinity, ModelError where the layers' gradients are not the parameters' whole gradient.
    """
    for _, _, records, _ in _passes(blocks, losses, params, batches):
        for block, (inputs, gradient) in zip(blocks, records, strict=True):
            block.observe(inputs, gradient)
    for block in blocks:
        block.settle()
    sums = [torch.zeros((), dtype=torch.float64) for _ in blocks]
    count, checked = 0, False
    for loss, batch, records, size in _passes(blocks, losses, params, batches):
        if not checked:
            _require_whole_gradients(blocks, records, loss, params, batch)
            checked = True
        for place, (block, (inputs, gradient)) in enumerate(zip(blocks, records, strict=True)):
            squares = block.gradients(inputs, gradient).double().square().sum(0)
            sums[place] = sums[place].to(squares.device) + squares
        count += size
    eigenvalues = [total / count for total in sums]
    require_finite_vector({str(place): values for place, values in enumerate(eigenvalues)}, "an eigenvalue of EKFAC")
    return eigenvalues


def _passes(
    blocks: Sequence[Block], losses: Sequence[PerSampleLoss], params: Params, batches: Iterable[Batch]
) -> Iterator[tuple[PerSampleLoss, Batch, list[tuple[Tensor, Tensor]], int]]:
    """Each batch under each loss: the two, what passed through the blocks' layers, the number of samples."""
    first = 0
    for batch in batches:
        for loss in losses:
            records, size = layer_gradients(blocks, loss, params, batch, first=first)
            yield loss, batch, records, size
        first += size
    if first == 0:
        raise ValueError("batches is empty, or cannot be iterated over more than once")


def _require_whole_gradients(
    blocks: Sequence[Block], records: Sequence[tuple[Tensor, Tensor]], loss: PerSampleLoss, params: Params, batch: Batch
) -> None:
    """The layers' gradients must add up to autograd's, or a parameter acts elsewhere too, as a tied one does."""
    with torch.no_grad():  # of what lies outside of the transform
        expected: Vector = torch.func.grad(lambda at: loss(at, batch).sum())(dict(params))
    for block, (inputs, gradient) in zip(blocks, records, strict=True):
        gradients = block.gradients(inputs, gradient)
        total = block.restore(gradients.sum(0))
        error = norm(combine(1.0, total, -1.0, {name: expected[name] for name in total}))
        scale = float(gradients.flatten(1).norm(dim=1).sum()) + norm({name: expected[name] for name in total})
        if error > 10 * math.sqrt(torch.finfo(gradients.dtype).eps) * scale:
            raise ModelError(
                f"influence: the gradient of {', '.join(block.names)} is not that of the layer's one call: the"
                " parameters are also used elsewhere, or the loss of a sample depends on others",
                "Leave these parameters out, or use CG.",
            )
