"""No inverse: influence as the product of two gradients (TracIn at the last checkpoint, Pruthi et al., 2020)."""

from collections.abc import Iterable
from dataclasses import dataclass

from dealrec.influence.hvp import Batch, Params, PerSampleLoss, Vector, combine, hessian_vector
from dealrec.influence.solvers import PRODUCT_VECTORS, Solution, Solve, relative_residual, vector_bytes


@dataclass(frozen=True, kw_only=True)
class Identity:
    """x = v: what the inverse Hessian adds is what the other solvers have beyond this one.

    It solves another system exactly, so `converged` is True; the residual is that of H x = v, as for all solvers.
    """

    def prepare(self, per_sample_loss: PerSampleLoss, params: Params, batches: Iterable[Batch]) -> Solve:
        """Nothing to prepare."""
        product = hessian_vector(per_sample_loss, params, batches)

        def solve(vector: Vector) -> Solution:
            x = combine(1.0, vector, 0.0, vector)
            return Solution(x, relative_residual(product(x), vector), 0, 0.0, True, 0.0)

        return solve

    def memory(self, params: Params) -> int:
        """The vector, and what the residual's product needs."""
        return (1 + PRODUCT_VECTORS) * vector_bytes(params)
