"""The low-rank solution, by hand on diagonal matrices and against Exact where the rank is enough."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from dealrec.errors import NotConverged
from dealrec.influence import Arnoldi, Exact, Solution, inverse_hvp
from dealrec.influence.hvp import dot
from dealrec.influence.solvers import Solver
from dealrec.influence.spectrum import lanczos


def quadratic(params: Mapping[str, Tensor], batch: Tensor) -> Tensor:
    joined = torch.cat([params["x"], params["y"].flatten()])
    return 0.5 * torch.einsum("i,bij,j->b", joined, batch, joined)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def solve(values: Tensor, v: Tensor, solver: Solver) -> Solution:
    """A diagonal H over two parameters, one of them a matrix."""
    vector = {"x": v[:-2], "y": v[-2:].view(2, 1)}
    batches = [torch.diag(values).unsqueeze(0)]
    return inverse_hvp(quadratic, {name: part + 1 for name, part in vector.items()}, batches, vector, solver=solver)


def flat(solution: Solution) -> Tensor:
    return torch.cat([solution.vector["x"], solution.vector["y"].flatten()])


def test_more_rank_than_parameters_solves_exactly() -> None:
    values, v = torch.tensor([0.1, 0.5, 3.0, 3.0, 3.0, 8.0], dtype=torch.float64), normal(6)
    found = solve(values, v, Arnoldi(damping=0.2, tol=1e-8))
    torch.testing.assert_close(flat(found), v / (values + 0.2))
    assert found.iterations == 6
    torch.testing.assert_close(flat(solve(values, v, Arnoldi(damping=0.0, tol=1e-8))), v / values)


def test_the_rest_of_the_space_is_divided_by_the_damping_not_dropped() -> None:
    """Six eigenvalues, one zero of high multiplicity: rank 6 is all of H, and x - v / damping lies in its span."""
    values = torch.cat([torch.tensor([9.0, 7.0, 5.0, 3.0, 2.0, -1.0]), torch.zeros(60)]).double()
    v = normal(66)
    found = solve(values, v, Arnoldi(rank=6, damping=4.0, tol=1e-6))
    torch.testing.assert_close(flat(found), v / (values + 4.0))
    exact = solve(values, v, Exact(damping=4.0))
    torch.testing.assert_close(flat(found), flat(exact))


def test_the_pairs_largest_in_size_are_kept_and_the_others_count_as_zero() -> None:
    values, v = torch.tensor([1.0, -6.0, 2.0, 9.0], dtype=torch.float64), normal(4)
    found = solve(values, v, Arnoldi(rank=2, steps=4, damping=10.0, allow_unconverged=True))
    seen = torch.tensor([0.0, -6.0, 0.0, 9.0], dtype=torch.float64)
    x = v / (seen + 10.0)
    torch.testing.assert_close(flat(found), x)
    assert found.residual == pytest.approx(float(((values + 10.0) * x - v).norm() / v.norm()))


def test_a_rank_too_small_is_refused_with_advice() -> None:
    values, v = torch.linspace(1, 10, 40, dtype=torch.float64), normal(40)
    with pytest.raises(NotConverged, match="residual") as caught:
        solve(values, v, Arnoldi(rank=5, damping=0.1))
    assert "rank" in caught.value.remedy
    allowed = solve(values, v, Arnoldi(rank=5, damping=0.1, allow_unconverged=True))
    assert not allowed.converged
    assert allowed.residual > 1
    assert solve(values, v, Arnoldi(rank=5, damping=100.0)).converged  # H is small against it


def test_no_damping_is_refused_where_the_rank_leaves_something_out() -> None:
    values, v = torch.linspace(1, 10, 40, dtype=torch.float64), normal(40)
    for allowed in (False, True):
        with pytest.raises(NotConverged, match="divides") as caught:
            solve(values, v, Arnoldi(rank=5, damping=0.0, allow_unconverged=allowed))
        assert "damping" in caught.value.remedy


@pytest.mark.parametrize(("rank", "steps"), [(0, None), (5, 4)])
def test_a_rank_that_the_steps_cannot_give_is_refused(rank: int, steps: int | None) -> None:
    with pytest.raises(ValueError, match="rank"):
        Arnoldi(rank=rank, steps=steps)


def test_the_seed_draws_the_start() -> None:
    values, v = torch.linspace(0, 10, 40, dtype=torch.float64), normal(40)

    def run(seed: int) -> Tensor:
        return flat(solve(values, v, Arnoldi(rank=3, damping=1.0, seed=seed, allow_unconverged=True)))

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_restart_spans_the_whole_space_with_orthonormal_vectors(dtype: torch.dtype) -> None:
    values = torch.tensor([2.0, 2.0, 2.0, 0.0, 0.0, -1.0], dtype=dtype)
    krylov = lanczos(lambda v: {"x": values * v["x"]}, {"x": values}, steps=9, restart=True)
    assert len(krylov.basis) == 6
    gram = torch.tensor([[dot(left, right) for right in krylov.basis] for left in krylov.basis])
    torch.testing.assert_close(gram, torch.eye(6), rtol=0, atol=1e-5)
    got = torch.linalg.eigvalsh(krylov.matrix)
    torch.testing.assert_close(got, values.double().sort().values, rtol=0, atol=1e-5)
