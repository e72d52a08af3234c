"""The ends of the Hessian's spectrum, by the Lanczos method."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from dealrec.influence.hvp import Vector, combine, dot, norm


@dataclass(frozen=True)
class Spectrum:
    """Estimates of the smallest and the largest eigenvalue; both lie inside the true spectrum."""

    smallest: float
    largest: float


def estimate_spectrum(product: Callable[[Vector], Vector], like: Vector, *, steps: int = 15, seed: int = 0) -> Spectrum:
    """Lanczos with full reorthogonalisation, from a random start (Golub and Van Loan, section 10.1).

    product: v -> H v. like: gives the shapes. steps: products that are spent; an invariant subspace
    ends it earlier. The extreme eigenvalues converge first, so a few steps suffice.
    """
    generator = torch.Generator().manual_seed(seed)
    start = {
        name: torch.randn(value.shape, generator=generator, dtype=value.dtype).to(value.device)
        for name, value in like.items()
    }
    basis = [combine(1.0 / norm(start), start, 0.0, start)]
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    size = sum(value.numel() for value in like.values())
    for step in range(min(steps, size)):
        image = product(basis[-1])
        diagonal.append(dot(basis[-1], image))
        for direction in basis + basis:  # twice is enough
            image = combine(1.0, image, -dot(direction, image), direction)
        length = norm(image)
        if step + 1 == min(steps, size) or length <= 1e-6 * max(1e-30, max(abs(value) for value in diagonal)):
            break
        off_diagonal.append(length)
        basis.append(combine(1.0 / length, image, 0.0, image))
    off = torch.tensor(off_diagonal, dtype=torch.float64)
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + torch.diag(off, 1) + torch.diag(off, -1)
    eigenvalues = torch.linalg.eigvalsh(matrix)
    return Spectrum(float(eigenvalues[0]), float(eigenvalues[-1]))
