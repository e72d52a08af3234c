"""The matrix H itself, for small models and as the yardstick of the other solvers."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from dealrec.influence.hvp import Batch, Params, PerSampleLoss, Vector, hessian_vector
from dealrec.influence.solvers import (
    PRODUCT_VECTORS,
    Solution,
    Solve,
    require_converged,
    require_definite,
    vector_bytes,
)
from dealrec.influence.spectrum import Spectrum


@dataclass(frozen=True, kw_only=True)
class Exact:
    """Forms H column by column and solves in float64: memory of the order of p^2, for a few thousand parameters.

    Where H + damping I is singular the solution is the one of least norm, provided that the vector lies in its
    range; otherwise the residual exceeds tol. An indefinite one is refused: there H is not that of a minimum, and
    the scores would change sign along the directions of negative curvature. allow_unconverged lifts both.
    """

    damping: float = 0.0
    tol: float = 1e-6
    max_parameters: int = 10_000
    allow_unconverged: bool = False

    def prepare(self, per_sample_loss: PerSampleLoss, params: Params, batches: Iterable[Batch]) -> Solve:
        """Form the matrix; raise NotConverged if it is indefinite. Solving raises it where there is no solution."""
        start = time.perf_counter()
        like = _flatten(params)
        if len(like) > self.max_parameters:
            raise ValueError(
                f"Exact would form a matrix of {len(like)}^2; use CG above {self.max_parameters} parameters"
            )
        matrix = _symmetric_matrix(hessian_vector(per_sample_loss, params, batches), like, params)
        eigenvalues, eigenvectors = torch.linalg.eigh(matrix)
        # What rounding in the products' own precision may make of a zero eigenvalue.
        slack = 10 * math.sqrt(len(like)) * torch.finfo(like.dtype).eps
        if not self.allow_unconverged:
            spectrum = Spectrum(float(eigenvalues[0]), float(eigenvalues[-1]))
            require_definite(spectrum, self.damping, slack=slack)
        damped = eigenvalues + self.damping
        nonzero = damped.abs() > slack * damped.abs().max()
        inverse = torch.where(nonzero, 1 / damped.where(nonzero, 1.0), 0.0)
        setup = time.perf_counter() - start

        def solve(vector: Vector) -> Solution:
            start = time.perf_counter()
            target = _flatten(vector).double()
            x = eigenvectors @ (inverse * (eigenvectors.T @ target))
            residual = float((matrix @ x + self.damping * x - target).norm() / target.norm().clamp_min(1e-300))
            seconds = setup + time.perf_counter() - start
            vector = _unflatten(x.to(like.dtype), params)
            solution = Solution(vector, residual, len(like), seconds, residual <= self.tol, self.damping)
            remedy = "H + damping I is singular: raise damping."
            return require_converged(solution, self.tol, allow=self.allow_unconverged, remedy=remedy)

        return solve

    def memory(self, params: Params) -> int:
        """The matrix, its eigenvectors and LAPACK's two squares of work space, in float64."""
        return 4 * 8 * sum(value.numel() for value in params.values()) ** 2 + PRODUCT_VECTORS * vector_bytes(params)


def _symmetric_matrix(product: Callable[[Vector], Vector], like: Tensor, params: Params) -> Tensor:
    """[p, p] float64. The halves above and below the diagonal differ by rounding; their mean is taken."""
    matrix = torch.empty(len(like), len(like), dtype=torch.float64, device=like.device)
    for place in range(len(like)):
        unit = torch.zeros_like(like)
        unit[place] = 1
        matrix[:, place] = _flatten(product(_unflatten(unit, params)))
    return (matrix + matrix.T) / 2


def _flatten(vector: Params) -> Tensor:
    return torch.cat([value.flatten() for value in vector.values()])


def _unflatten(flat: Tensor, like: Params) -> Vector:
    parts = flat.split([value.numel() for value in like.values()])
    return {name: part.view_as(value) for part, (name, value) in zip(parts, like.items(), strict=True)}
