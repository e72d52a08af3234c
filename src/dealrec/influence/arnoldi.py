"""Inverse products from the leading eigenpairs (Schioppa, Zablotskaia, Vilar and Sokolov, AAAI 2022)."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dealrec.errors import NotConverged
from dealrec.influence.hvp import Batch, Params, PerSampleLoss, Vector, combine, dot, hessian_vector
from dealrec.influence.solvers import (
    Solution,
    Solve,
    default_damping,
    lanczos_vectors,
    relative_residual,
    require_converged,
    require_definite,
    vector_bytes,
)
from dealrec.influence.spectrum import Krylov, Spectrum, lanczos


@dataclass(frozen=True, kw_only=True)
class Arnoldi:
    """x = Q (Lambda + damping)^-1 Q^T v + (v - Q Q^T v) / damping, with H about Q Lambda Q^T.

    Q [p, rank], Lambda: the Ritz pairs largest in size, from `steps` Lanczos steps at a random start, which does
    not depend on v (H is symmetric, so Arnoldi's iteration is Lanczos'). The published method drops the second
    term, all of v outside of Q; here H counts as zero there. That is close where the rest of the spectrum is
    small against damping, and the residual tells: expect to need a larger damping, or rank, than CG.

    damping None: CG's rule, from the same Lanczos run. steps None: twice the rank, since the last Ritz pairs have
    not converged. seed: of the start. tol: largest accepted relative residual.
    """

    damping: float | None = None
    rank: int = 50
    steps: int | None = None
    seed: int = 0
    tol: float = 0.1
    allow_unconverged: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= self._steps:
            raise ValueError(f"rank {self.rank} is not between 1 and the number of steps, {self._steps}")

    @property
    def _steps(self) -> int:
        return 2 * self.rank if self.steps is None else self.steps

    def prepare(self, per_sample_loss: PerSampleLoss, params: Params, batches: Iterable[Batch]) -> Solve:
        """Find the eigenpairs; raise NotConverged if H + damping I is indefinite. Solving raises it above tol."""
        start = time.perf_counter()
        product = hessian_vector(per_sample_loss, params, batches)
        krylov = lanczos(product, params, steps=self._steps, seed=self.seed, restart=True)
        values, ritz = torch.linalg.eigh(krylov.matrix)
        spectrum = Spectrum(float(values[0]), float(values[-1]))
        damping = default_damping(spectrum) if self.damping is None else self.damping
        if not self.allow_unconverged:
            require_definite(spectrum, damping)
        leading = values.abs().argsort(descending=True)[: self.rank]
        setup = time.perf_counter() - start

        def solve(vector: Vector) -> Solution:
            start = time.perf_counter()
            x = _low_rank_solution(krylov, values[leading], ritz[:, leading], vector, damping=damping)
            residual = relative_residual(combine(1.0, product(x), damping, x), vector)
            seconds = setup + time.perf_counter() - start
            solution = Solution(x, residual, len(krylov.basis), seconds, residual <= self.tol, damping)
            return require_converged(
                solution, self.tol, allow=self.allow_unconverged, remedy="Raise damping, rank or steps, or use CG."
            )

        return solve

    def memory(self, params: Params) -> int:
        """The Krylov basis, one vector a step, and a few vectors more."""
        return lanczos_vectors(self._steps, params) * vector_bytes(params)


def _low_rank_solution(krylov: Krylov, values: Tensor, ritz: Tensor, vector: Vector, *, damping: float) -> Vector:
    """values: [r]. ritz: [k, r]. Q = basis ritz is never formed: its products with vectors need the basis only."""
    coordinates = ritz.T @ torch.tensor([dot(direction, vector) for direction in krylov.basis], dtype=torch.float64)
    low_rank = _weighted_sum(krylov.basis, ritz @ (coordinates / (values + damping)))
    if len(values) == sum(part.numel() for part in vector.values()):
        return low_rank  # Q spans the whole space: what is left of v is rounding, and damping may be zero
    if not damping > 0:
        raise NotConverged(
            "influence: Arnoldi divides what its eigenvectors miss of the vector by damping, which is not positive",
            "Set damping, leave it unset to have it estimated, or raise rank to the number of parameters.",
        )
    complement = combine(1.0, vector, -1.0, _weighted_sum(krylov.basis, ritz @ coordinates))
    return combine(1.0, low_rank, 1.0 / damping, complement)


def _weighted_sum(vectors: Sequence[Vector], weights: Tensor) -> Vector:
    total = {name: torch.zeros_like(value) for name, value in vectors[0].items()}
    for weight, vector in zip(weights.tolist(), vectors, strict=True):
        total = combine(1.0, total, weight, vector)
    return total
