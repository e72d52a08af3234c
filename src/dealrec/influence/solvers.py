"""What the solvers of (H + damping I) x = v share, H the Hessian of the mean loss.

`CG` uses the whole data in each step, `LiSSA` (Algorithm 1 of DEALRec, after Agarwal et al., 2017) one
batch a step, `Arnoldi` the ends of the spectrum only, `EKFAC` a factorised Gauss-Newton matrix; `Exact` forms
the matrix and is for small models and for testing the others. Each reports the same measure, the residual
||(H + damping I) x - v|| / ||v|| on the full data, and all but EKFAC refuse to return a result above their
tolerance unless they were told to allow it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch

from dealrec.errors import NotConverged
from dealrec.influence.hvp import Batch, Params, PerSampleLoss, Vector, combine, norm, require_finite_vector
from dealrec.influence.spectrum import Spectrum

MIN_RELATIVE_DAMPING = 1e-3  # of the largest eigenvalue: bounds the condition number by about 1,000
MIN_DAMPING = 1e-12
CLEARLY_NEGATIVE = 1e-5  # of the eigenvalue largest in size: beyond what float32 products leave of a zero

SPECTRUM_STEPS = 15
PRODUCT_VECTORS = 3  # held while a Hessian-vector product goes over the batches: two sums and a batch's part


@dataclass(frozen=True)
class Solution:
    """x with (H + damping I) x = v.

    residual: ||(H + damping I) x - v|| / ||v|| on the full data. iterations: steps taken. seconds: wall
    time, that of what was prepared included. converged: residual <= the solver's tolerance; EKFAC, which
    solves its own approximation in closed form, always says True.
    """

    vector: Vector
    residual: float
    iterations: int
    seconds: float
    converged: bool
    damping: float


Solve = Callable[[Vector], Solution]


class Solver(Protocol):
    """What `inverse_hvp` needs of a solver."""

    def prepare(self, per_sample_loss: PerSampleLoss, params: Params, batches: Iterable[Batch]) -> Solve:
        """Fix the point; return v -> Solution. What does not depend on v is computed once, and serves every v.

        The function that is returned raises NotConverged rather than return what is not a solution.
        """
        ...

    def memory(self, params: Params) -> int:
        """Bytes that solving holds at its peak, besides one batch's graph: known before anything is computed."""
        ...


def inverse_hvp(
    per_sample_loss: PerSampleLoss, params: Params, batches: Iterable[Batch], vector: Vector, *, solver: Solver
) -> Solution:
    """(H + damping I)^-1 vector, H the Hessian of the mean loss over `batches` at `params`.

    batches: re-iterable. vector: one tensor per parameter. Raises NotConverged unless the solver allows it,
    NonFinite where the vector or a product with H is NaN or infinite.
    """
    if vector.keys() != params.keys():
        raise ValueError(f"vector holds {sorted(vector)}, but the parameters are {sorted(params)}")
    ordered = {name: vector[name] for name in params}
    require_finite_vector(ordered, "the vector to solve for")
    return solver.prepare(per_sample_loss, dict(params), batches)(ordered)


def default_damping(spectrum: Spectrum) -> float:
    """The least damping that makes H + damping I safely positive definite and well conditioned.

    Where H is positive semi-definite it bounds the condition number by about 1,000; where it is not,
    it lifts the most negative eigenvalue by half its size again, since Lanczos sees it from inside.
    """
    return max(MIN_RELATIVE_DAMPING * abs(spectrum.largest), 1.5 * max(0.0, -spectrum.smallest), MIN_DAMPING)


def require_definite(spectrum: Spectrum, damping: float, *, slack: float = CLEARLY_NEGATIVE) -> None:
    """Raise NotConverged if H + damping I has an eigenvalue below -slack times the one largest in size."""
    lowest = spectrum.smallest + damping
    size = max(abs(lowest), abs(spectrum.largest + damping))
    if lowest < -slack * size:
        raise NotConverged(
            f"influence: H + damping I is not positive definite: with damping {damping:.3g} its smallest eigenvalue"
            f" is about {lowest:.3g}",
            f"Set damping to {default_damping(spectrum):.3g} or more.",
        )


def relative_residual(image: Vector, vector: Vector) -> float:
    """||image - vector|| / ||vector||, 0 where both are 0."""
    return norm(combine(1.0, image, -1.0, vector)) / max(norm(vector), 1e-300)


def require_converged(solution: Solution, tol: float, *, allow: bool, remedy: str) -> Solution:
    """The solution, if it is finite and either converged or allowed not to be; else raise NotConverged."""
    finite = all(bool(torch.isfinite(value).all()) for value in solution.vector.values())
    if finite and (solution.converged or allow):
        return solution
    raise NotConverged(
        f"influence: the solver's residual is {solution.residual:.3g} after {solution.iterations} steps,"
        f" above its tolerance {tol:.3g} (damping {solution.damping:.3g})",
        remedy,
    )


def vector_bytes(params: Params) -> int:
    """Bytes of one vector over all parameters."""
    return sum(value.numel() * value.element_size() for value in params.values())


def lanczos_vectors(steps: int, params: Params) -> int:
    """Vectors that a Lanczos run of `steps` holds: its basis, the start or image, its update, a product's own."""
    return min(steps, sum(value.numel() for value in params.values())) + 2 + PRODUCT_VECTORS
