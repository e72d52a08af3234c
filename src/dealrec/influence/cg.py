"""Conjugate gradients on the full data."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from dealrec.errors import NotConverged
from dealrec.influence.hvp import Batch, Params, PerSampleLoss, Vector, combine, dot, hessian_vector, norm
from dealrec.influence.solvers import (
    PRODUCT_VECTORS,
    SPECTRUM_STEPS,
    Solution,
    Solve,
    default_damping,
    lanczos_vectors,
    require_converged,
    vector_bytes,
)
from dealrec.influence.spectrum import estimate_spectrum


@dataclass(frozen=True, kw_only=True)
class CG:
    """Conjugate gradients; H + damping I must be positive definite, which is checked along the way.

    damping None: max(1e-3 of the largest eigenvalue, 1.5 times the most negative one's size), both from a Lanczos
    estimate; raised where CG meets a negative curvature that the estimate has missed. tol: largest accepted relative
    residual. max_iter: each one pass over the data.
    """

    damping: float | None = None
    tol: float = 1e-3
    max_iter: int = 200
    allow_unconverged: bool = False

    def prepare(self, per_sample_loss: PerSampleLoss, params: Params, batches: Iterable[Batch]) -> Solve:
        """Settle the damping. Solving raises NotConverged on negative curvature or after max_iter steps."""
        start = time.perf_counter()
        product = hessian_vector(per_sample_loss, params, batches)
        damping = (
            default_damping(estimate_spectrum(product, params, steps=SPECTRUM_STEPS))
            if self.damping is None
            else self.damping
        )
        setup = time.perf_counter() - start

        def operator(vector: Vector) -> Vector:
            return combine(1.0, product(vector), damping, vector)

        def solve(vector: Vector) -> Solution:
            nonlocal damping
            start = time.perf_counter()
            while True:
                try:
                    x, residual, iterations = _restarted_cg(operator, vector, tol=self.tol, max_iter=self.max_iter)
                    break
                except Indefinite as error:
                    if self.damping is not None:
                        raise
                    damping = 2 * damping - 1.5 * error.curvature  # Lanczos has not seen this direction
            seconds = setup + time.perf_counter() - start
            solution = Solution(x, residual, iterations, seconds, residual <= self.tol, damping)
            return require_converged(
                solution, self.tol, allow=self.allow_unconverged, remedy="Raise damping or max_iter."
            )

        return solve

    def memory(self, params: Params) -> int:
        """Eight vectors of the recurrence and its restart, and a product's; or the Lanczos basis if it is needed."""
        vectors = 8 + PRODUCT_VECTORS
        if self.damping is None:
            vectors = max(vectors, lanczos_vectors(SPECTRUM_STEPS, params))
        return vectors * vector_bytes(params)


class Indefinite(NotConverged):
    """H + damping I has a direction of negative curvature."""

    curvature: float = math.nan  # along a unit vector


def _restarted_cg(
    operator: Callable[[Vector], Vector], vector: Vector, *, tol: float, max_iter: int
) -> tuple[Vector, float, int]:
    """The solution, its true residual and the steps.

    The recurrence's own residual drifts from the true one in float32. So the true one is computed, and what is left
    of it is solved for again, as long as that makes it smaller.
    """
    x, iterations = _conjugate_gradients(operator, vector, goal=0.5 * tol * norm(vector), max_iter=max_iter)
    residual = combine(1.0, vector, -1.0, operator(x))
    while norm(residual) > tol * norm(vector) and iterations < max_iter:
        correction, steps = _conjugate_gradients(
            operator, residual, goal=0.5 * tol * norm(vector), max_iter=max_iter - iterations
        )
        iterations += steps
        corrected = combine(1.0, x, 1.0, correction)
        remainder = combine(1.0, vector, -1.0, operator(corrected))
        if not norm(remainder) < norm(residual):
            break
        x, residual = corrected, remainder
    return x, norm(residual) / max(norm(vector), 1e-300), iterations


def _conjugate_gradients(
    operator: Callable[[Vector], Vector], vector: Vector, *, goal: float, max_iter: int
) -> tuple[Vector, int]:
    """Hestenes and Stiefel (1952), from zero, until the recurrence's residual is at most `goal`."""
    x = {name: torch.zeros_like(value) for name, value in vector.items()}
    residual, direction = dict(vector), dict(vector)
    rho = dot(residual, residual)
    for iteration in range(max_iter):
        if math.sqrt(rho) <= goal:
            return x, iteration
        image = operator(direction)
        curvature = dot(direction, image)
        if not curvature > 0:
            curvature /= dot(direction, direction)
            error = Indefinite(
                f"influence: H + damping I is not positive definite: curvature {curvature:.3g} along a direction met"
                f" in iteration {iteration + 1} of CG",
                "Raise damping above that size, or leave it unset to have it estimated.",
            )
            error.curvature = curvature
            raise error
        step = rho / curvature
        x = combine(1.0, x, step, direction)
        residual = combine(1.0, residual, -step, image)
        previous, rho = rho, dot(residual, residual)
        direction = combine(1.0, residual, rho / previous, direction)
    return x, max_iter
