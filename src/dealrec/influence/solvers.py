"""Solvers of (H + damping I) x = v, H the Hessian of the mean loss.

`CG` uses the whole data in each step, `LiSSA` (Algorithm 1 of DEALRec, after Agarwal et al., 2017) one
batch a step, `Exact` forms the matrix and is for small models and for testing the others. Each is judged
by the same measure, the residual ||(H + damping I) x - v|| / ||v|| on the full data, and refuses to return
a result above its tolerance unless it was told to allow it.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from dealrec.errors import NotConverged
from dealrec.influence.hvp import (
    Batch,
    Params,
    PerSampleLoss,
    Vector,
    batch_hessian_vector,
    combine,
    dot,
    hessian_vector,
    norm,
    require_finite_vector,
)
from dealrec.influence.spectrum import Spectrum, estimate_spectrum

MIN_RELATIVE_DAMPING = 1e-3  # of the largest eigenvalue: bounds the condition number by about 1,000


@dataclass(frozen=True)
class Solution:
    """x with (H + damping I) x = v.

    residual: ||(H + damping I) x - v|| / ||v|| on the full data. iterations: steps taken. seconds: wall
    time, the estimate of the spectrum included. converged: residual <= the solver's tolerance.
    """

    vector: Vector
    residual: float
    iterations: int
    seconds: float
    converged: bool
    damping: float


class Solver(Protocol):
    """What `inverse_hvp` needs of a solver."""

    def solve(
        self, per_sample_loss: PerSampleLoss, params: Params, batches: Iterable[Batch], vector: Vector
    ) -> Solution:
        """Solve for `vector`; raise NotConverged rather than return what is not a solution."""
        ...


@dataclass(frozen=True, kw_only=True)
class CG:
    """Conjugate gradients; H + damping I must be positive definite, which is checked along the way.

    damping None: max(1e-3 of the largest eigenvalue, 1.5 times the most negative one's size), both
    from a Lanczos estimate. tol: largest accepted relative residual. max_iter: each one pass over the data.
    """

    damping: float | None = None
    tol: float = 1e-3
    max_iter: int = 200
    allow_unconverged: bool = False

    def solve(
        self, per_sample_loss: PerSampleLoss, params: Params, batches: Iterable[Batch], vector: Vector
    ) -> Solution:
        """Solve for `vector`; raise NotConverged on negative curvature or after max_iter steps."""
        start = time.perf_counter()
        product = hessian_vector(per_sample_loss, params, batches)
        damping = self.damping
        if damping is None:
            damping = default_damping(estimate_spectrum(product, vector))

        def operator(v: Vector) -> Vector:
            return combine(1.0, product(v), damping, v)

        x, iterations = _conjugate_gradients(operator, vector, tol=self.tol, max_iter=self.max_iter)
        # The recurrence's own residual drifts from the true one in float32, so it is computed anew.
        residual = _relative_residual(operator(x), vector)
        solution = Solution(x, residual, iterations, time.perf_counter() - start, residual <= self.tol, damping)
        return _accepted(solution, self.tol, allow=self.allow_unconverged, remedy="Raise damping or max_iter.")


def _conjugate_gradients(
    operator: Callable[[Vector], Vector], vector: Vector, *, tol: float, max_iter: int
) -> tuple[Vector, int]:
    """Hestenes and Stiefel (1952), from zero."""
    x = {name: torch.zeros_like(value) for name, value in vector.items()}
    residual, direction = dict(vector), dict(vector)
    rho = dot(residual, residual)
    goal = 0.5 * tol * math.sqrt(rho)
    for iteration in range(max_iter):
        if math.sqrt(rho) <= goal:
            return x, iteration
        image = operator(direction)
        curvature = dot(direction, image)
        if not curvature > 0:
            length = dot(direction, direction)
            raise NotConverged(
                f"influence: H + damping I is not positive definite: curvature {curvature / length:.3g}"
                f" along a direction met in iteration {iteration + 1} of CG",
                "Raise damping above that size, or leave it unset to have it estimated.",
            )
        step = rho / curvature
        x = combine(1.0, x, step, direction)
        residual = combine(1.0, residual, -step, image)
        previous, rho = rho, dot(residual, residual)
        direction = combine(1.0, residual, rho / previous, direction)
    return x, max_iter


@dataclass(frozen=True, kw_only=True)
class LiSSA:
    """Stochastic recursion h_t = v + (I - (H_t + damping I) / scale) h_(t-1), H_t from one batch; x = h / scale.

    Batches of one sample are the paper's; a batch weighs by its number of samples, so that the mean of H_t is H.
    scale must exceed the largest eigenvalue of any H_t + damping I; None: twice that of the full H (a batch's can
    be larger, so a divergence is still checked). repeats: recursions that are averaged, each with its own order of
    batches. seed: of that order. step_batches: what the steps draw from, the same samples in other batches, None:
    the batches of the data; with it the steps can take single samples while the spectrum and the residual are
    computed in large batches.
    """

    damping: float | None = None
    scale: float | None = None
    depth: int = 5000
    repeats: int = 1
    seed: int = 0
    tol: float = 0.1
    allow_unconverged: bool = False
    step_batches: Sequence[Batch] | None = None

    def solve(
        self, per_sample_loss: PerSampleLoss, params: Params, batches: Iterable[Batch], vector: Vector
    ) -> Solution:
        """Solve for `vector`; raise NotConverged on divergence or a residual above tol."""
        start = time.perf_counter()
        product = hessian_vector(per_sample_loss, params, batches)
        damping, scale = self.damping, self.scale
        if damping is None or scale is None:
            spectrum = estimate_spectrum(product, vector)
            damping = default_damping(spectrum) if damping is None else damping
            scale = 2 * (spectrum.largest + damping) if scale is None else scale
        drawn = list(batches) if self.step_batches is None else self.step_batches
        if not drawn:
            raise ValueError("batches is empty, or cannot be iterated over more than once")
        with torch.no_grad():  # counted over the data's own batches, which may be far fewer than the steps'
            size = sum(len(per_sample_loss(params, batch)) for batch in batches) / len(drawn)
        generator = torch.Generator().manual_seed(self.seed)
        runs = [
            self._recursion(
                per_sample_loss, params, drawn, vector, damping=damping, scale=scale, size=size, generator=generator
            )
            for _ in range(self.repeats)
        ]
        x = {name: torch.stack([run[name] for run in runs]).mean(0) / scale for name in vector}
        residual = _relative_residual(combine(1.0, product(x), damping, x), vector)
        steps = self.depth * self.repeats
        solution = Solution(x, residual, steps, time.perf_counter() - start, residual <= self.tol, damping)
        remedy = "Raise depth, scale or the batch size, or use CG."
        return _accepted(solution, self.tol, allow=self.allow_unconverged, remedy=remedy)

    def _recursion(
        self,
        per_sample_loss: PerSampleLoss,
        params: Params,
        batches: Sequence[Batch],
        vector: Vector,
        *,
        damping: float,
        scale: float,
        size: float,
        generator: torch.Generator,
    ) -> Vector:
        h = dict(vector)
        limit = 1e6 * max(norm(vector), torch.finfo(torch.float32).tiny) * max(1.0, scale)
        for step, index in enumerate(islice(_shuffled_forever(len(batches), generator), self.depth)):
            image, _ = batch_hessian_vector(per_sample_loss, params, batches[index], h)
            h = {name: vector[name] + (1 - damping / scale) * h[name] - image[name] / (size * scale) for name in h}
            if (step % 50 == 0 or step == self.depth - 1) and not norm(h) <= limit:
                raise NotConverged(
                    f"influence: LiSSA diverged after {step + 1} steps (scale {scale:.3g}, damping {damping:.3g})",
                    "Raise scale above the largest eigenvalue of a single batch, raise damping, or use CG.",
                )
        return h


def _shuffled_forever(count: int, generator: torch.Generator) -> Iterable[int]:
    while True:
        yield from torch.randperm(count, generator=generator).tolist()


@dataclass(frozen=True, kw_only=True)
class Exact:
    """Forms H column by column and solves in float64: memory p^2, for at most a few thousand parameters."""

    damping: float = 0.0
    tol: float = 1e-6
    max_parameters: int = 10_000

    def solve(
        self, per_sample_loss: PerSampleLoss, params: Params, batches: Iterable[Batch], vector: Vector
    ) -> Solution:
        """Solve for `vector`; raise NotConverged if H + damping I is singular."""
        start = time.perf_counter()
        flat = _flatten(vector)
        if len(flat) > self.max_parameters:
            raise ValueError(
                f"Exact would form a matrix of {len(flat)}^2; use CG above {self.max_parameters} parameters"
            )
        product = hessian_vector(per_sample_loss, params, batches)
        identity = torch.eye(len(flat), dtype=flat.dtype)
        columns = [_flatten(product(_unflatten(column, params))).double() for column in identity]
        matrix = torch.stack(columns, dim=1) + self.damping * torch.eye(len(flat), dtype=torch.float64)
        x = torch.linalg.lstsq(matrix, flat.double(), driver="gelsd").solution
        residual = float((matrix @ x - flat.double()).norm() / flat.double().norm().clamp_min(1e-300))
        found = _unflatten(x.to(flat.dtype), params)
        seconds = time.perf_counter() - start
        solution = Solution(found, residual, len(flat), seconds, residual <= self.tol, self.damping)
        return _accepted(solution, self.tol, allow=False, remedy="H + damping I is singular: raise damping.")


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
    return solver.solve(per_sample_loss, dict(params), batches, ordered)


def default_damping(spectrum: Spectrum) -> float:
    """The least damping that makes H + damping I safely positive definite and well conditioned.

    Where H is positive semi-definite it bounds the condition number by about 1,000; where it is not,
    it lifts the most negative eigenvalue by half its size again, since Lanczos sees it from inside.
    """
    return max(MIN_RELATIVE_DAMPING * abs(spectrum.largest), 1.5 * max(0.0, -spectrum.smallest), 1e-12)


def _relative_residual(image: Vector, vector: Vector) -> float:
    return norm(combine(1.0, image, -1.0, vector)) / max(norm(vector), 1e-300)


def _accepted(solution: Solution, tol: float, *, allow: bool, remedy: str) -> Solution:
    finite = all(bool(torch.isfinite(value).all()) for value in solution.vector.values())
    if finite and (solution.converged or allow):
        return solution
    raise NotConverged(
        f"influence: the solver's residual is {solution.residual:.3g} after {solution.iterations} steps,"
        f" above its tolerance {tol:.3g} (damping {solution.damping:.3g})",
        remedy,
    )


def _flatten(vector: Vector) -> Tensor:
    return torch.cat([value.flatten() for value in vector.values()])


def _unflatten(flat: Tensor, like: Params) -> Vector:
    parts = flat.split([value.numel() for value in like.values()])
    return {name: part.view_as(value) for part, (name, value) in zip(parts, like.items(), strict=True)}
