"""The ends of the Hessian's spectrum, by the Lanczos method."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dealrec.influence.hvp import Params, Vector, combine, dot, norm


@dataclass(frozen=True)
class Spectrum:
    """Estimates of the smallest and the largest eigenvalue; both lie inside the true spectrum."""

    smallest: float
    largest: float


@dataclass(frozen=True)
class Krylov:
    """basis: k orthonormal vectors. matrix: [k, k] float64, tridiagonal, basis^T H basis."""

    basis: list[Vector]
    matrix: Tensor


def estimate_spectrum(product: Callable[[Vector], Vector], like: Params, *, steps: int = 15, seed: int = 0) -> Spectrum:
    """The extreme eigenvalues of a Lanczos run; they converge first, so a few steps suffice.

    product: v -> H v. like: gives the shapes. steps: products that are spent; an invariant subspace
    ends it earlier.
    """
    eigenvalues = torch.linalg.eigvalsh(lanczos(product, like, steps=steps, seed=seed).matrix)
    return Spectrum(float(eigenvalues[0]), float(eigenvalues[-1]))


def lanczos(
    product: Callable[[Vector], Vector], like: Params, *, steps: int, seed: int = 0, restart: bool = False
) -> Krylov:
    """Lanczos with full reorthogonalisation, from a random start (Golub and Van Loan, section 10.1).

    An invariant subspace, such as repeated eigenvalues lead to, ends the run before `steps` products; with
    `restart` the run goes on from a new random direction orthogonal to it.
    """
    generator = torch.Generator().manual_seed(seed)
    start = _random_vector(like, generator)
    basis = [combine(1.0 / norm(start), start, 0.0, start)]
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    steps = min(steps, sum(value.numel() for value in like.values()))
    for step in range(steps):
        image = product(basis[-1])
        diagonal.append(dot(basis[-1], image))
        if step + 1 == steps:
            break
        image = _orthogonal_to(basis, image)
        length = norm(image)
        if length <= 1e-6 * max(1e-30, max(abs(value) for value in diagonal)):
            if not restart:
                break
            image = _orthogonal_to(basis, _random_vector(like, generator))
            off_diagonal.append(0.0)
            length = norm(image)
        else:
            off_diagonal.append(length)
        basis.append(combine(1.0 / length, image, 0.0, image))
    off = torch.tensor(off_diagonal, dtype=torch.float64)
    return Krylov(basis, torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + off.diag(1) + off.diag(-1))


def _random_vector(like: Params, generator: torch.Generator) -> Vector:
    return {
        name: torch.randn(value.shape, generator=generator, dtype=value.dtype).to(value.device)
        for name, value in like.items()
    }


def _orthogonal_to(basis: list[Vector], vector: Vector) -> Vector:
    for direction in basis + basis:  # twice is enough
        vector = combine(1.0, vector, -dot(direction, vector), direction)
    return vector
