"""Every solver against Exact on the hard cases at default settings, refusals, repetition, invariance, memory."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dealrec.errors import NotConverged
from dealrec.influence import CG, EKFAC, Arnoldi, Exact, LiSSA, Solution, inverse_hvp
from dealrec.influence.ekfac import fit
from dealrec.influence.hvp import hessian_vector
from dealrec.influence.layers import LinearBlock, blocks_of
from dealrec.influence.solvers import Solver
from dealrec.influence.spectrum import lanczos


def quadratic(params: Mapping[str, Tensor], batch: Tensor) -> Tensor:
    """x^T A_s x / 2 for matrices A_s [B, d, d]: the Hessian of the mean is the mean of A."""
    x = params["x"]
    return 0.5 * torch.einsum("i,bij,j->b", x, batch, x)


def solve(matrices: Tensor, v: Tensor, solver: Solver, *, size: int = 3) -> Solution:
    """matrices: [n, d, d]."""
    return inverse_hvp(quadratic, {"x": torch.full_like(v, 0.5)}, list(matrices.split(size)), {"x": v}, solver=solver)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def diagonal(*values: float) -> Tensor:
    return torch.diag(torch.tensor(values, dtype=torch.float64)).unsqueeze(0)


def spread(dim: int, *, n: int) -> Tensor:
    """n positive definite matrices that differ: [n, d, d]."""
    factors = normal(n, dim, dim) * 0.3
    return torch.eye(dim, dtype=torch.float64) + factors @ factors.transpose(1, 2)


MATRICES = {
    "identity": diagonal(1, 1, 1, 1),
    "singular": diagonal(0, 1, 2, 3),
    "singular, with a repeated eigenvalue": diagonal(0, 0, 2, 2),
    "negative curvature": diagonal(-0.5, 0.2, 1, 4),
    "more negative than positive": diagonal(-6, -0.1, 1, 2),
    "four scales": diagonal(1e-3, 0.1, 1, 10),
}


@pytest.mark.parametrize(
    ("name", "solver"),
    [
        *[(name, solver) for name in MATRICES for solver in (CG(), Arnoldi())],
        *[(name, LiSSA(depth=300)) for name in ("identity", "negative curvature", "more negative than positive")],
        # Its default damping, 1e-3 of the largest eigenvalue, would take thousands of steps here.
        ("singular", LiSSA(damping=0.2, depth=300)),
        ("singular, with a repeated eigenvalue", LiSSA(damping=0.2, depth=300)),
    ],
)
def test_a_solver_at_its_defaults_agrees_with_exact(name: str, solver: CG | LiSSA | Arnoldi) -> None:
    v = normal(4, seed=1)
    found = solve(MATRICES[name], v, solver)
    assert found.converged
    exact = solve(MATRICES[name], v, Exact(damping=found.damping)).vector["x"]
    torch.testing.assert_close(exact, v / (MATRICES[name][0].diagonal() + found.damping))
    assert float((found.vector["x"] - exact).norm() / exact.norm()) <= solver.tol


def test_exact_at_its_defaults_takes_the_least_norm_where_the_vector_is_in_the_range() -> None:
    v = torch.tensor([0.0, 3.0, 2.0], dtype=torch.float64)
    found = solve(diagonal(0, 1, 4), v, Exact())
    torch.testing.assert_close(found.vector["x"], torch.tensor([0.0, 3.0, 0.5], dtype=torch.float64))
    assert found.residual < 1e-12
    assert found.damping == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_below_zero_is_not_taken_for_negative_curvature(dtype: torch.dtype) -> None:
    factor = normal(40, 10).to(dtype)
    matrix = (factor @ factor.T).unsqueeze(0)  # of rank 10: thirty eigenvalues that rounding puts around 0
    v = matrix[0] @ normal(40, seed=1).to(dtype)
    assert solve(matrix, v, Exact(tol=1e-4)).residual <= 1e-4


@pytest.mark.parametrize("solver", [Exact(damping=0.25), LiSSA(damping=0.25, depth=300), Arnoldi(damping=0.25)])
def test_an_indefinite_matrix_is_refused_with_the_damping_that_would_do(solver: Exact | LiSSA | Arnoldi) -> None:
    matrix, v = diagonal(-2, 1, 1, 8), normal(4)
    with pytest.raises(NotConverged, match=r"not positive definite.* about -1\.75") as caught:
        solve(matrix, v, solver)
    assert caught.value.remedy == "Set damping to 3 or more."
    assert solve(matrix, v, replace(solver, damping=3.0)).converged


@pytest.mark.parametrize("solver", [Exact(allow_unconverged=True), Arnoldi(damping=0.0, allow_unconverged=True)])
def test_an_indefinite_matrix_is_solved_where_that_is_allowed(solver: Solver) -> None:
    got = solve(diagonal(-2, 1, 4), torch.ones(3, dtype=torch.float64), solver)
    torch.testing.assert_close(got.vector["x"], torch.tensor([-0.5, 1.0, 0.25], dtype=torch.float64))


def test_exact_returns_an_insoluble_system_where_that_is_allowed() -> None:
    got = solve(diagonal(0, 2), torch.ones(2, dtype=torch.float64), Exact(allow_unconverged=True))
    torch.testing.assert_close(got.vector["x"], torch.tensor([0.0, 0.5], dtype=torch.float64))
    assert not got.converged
    assert got.residual == pytest.approx(0.5**0.5)


def test_lissa_refuses_an_indefinite_matrix_before_it_spends_its_steps() -> None:
    matrix, calls = diagonal(-2, 1, 1, 8), 0

    def counted(params: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        assert calls < 50
        return quadratic(params, batch)

    with pytest.raises(NotConverged, match="not positive definite"):
        inverse_hvp(
            counted, {"x": normal(4)}, [matrix], {"x": normal(4)}, solver=LiSSA(damping=0.1, scale=30.0, depth=1000)
        )


def test_lissa_spares_the_spectrum_where_nothing_depends_on_it() -> None:
    calls = 0

    def counted(params: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return quadratic(params, batch)

    solver = LiSSA(damping=0.1, scale=30.0, depth=7, allow_unconverged=True)
    inverse_hvp(counted, {"x": normal(4)}, [diagonal(1, 1, 1, 8)], {"x": normal(4)}, solver=solver)
    assert calls == 1 + 7 + 1  # counting the samples, the steps, the residual


@pytest.mark.slow
def test_the_reference_settings_are_the_release_but_for_its_scale() -> None:
    matrices, v = torch.cat([diagonal(0.5, 2, 4), diagonal(1.5, 2, 0)]), normal(3)
    got = solve(matrices.mean(0, keepdim=True), v, replace(LiSSA.reference(), depth=600))
    h = v
    for _ in range(600):  # as released: damping 0.01, scale 25, nothing divided out
        h = v + (1 - 0.01) * h - matrices.mean(0) @ h / 25
    torch.testing.assert_close(25 * got.vector["x"], h)
    torch.testing.assert_close(h, 25 * v / (torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64) + 0.25))
    assert (LiSSA.reference().depth, LiSSA.reference().repeats) == (5000, 1)
    steps = list(matrices.split(1))
    assert LiSSA.reference(seed=4, step_batches=steps) == replace(LiSSA.reference(), seed=4, step_batches=steps)
    with pytest.raises(NotConverged, match="diverged"):
        solve(diagonal(60, 1, 1), v, LiSSA.reference())


SOLVERS: list[Solver] = [
    CG(),
    Exact(),
    Arnoldi(rank=4, damping=30.0),
    Arnoldi(),
    LiSSA(depth=80, allow_unconverged=True),
]


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_second_run_gives_the_same_numbers_and_leaves_the_global_generator_alone(solver: Solver) -> None:
    matrices, v = spread(9, n=10), normal(9, seed=1)
    before = torch.random.get_rng_state()
    first, second = solve(matrices, v, solver), solve(matrices, v, solver)
    assert torch.equal(first.vector["x"], second.vector["x"])
    assert (first.residual, first.iterations, first.damping) == (second.residual, second.iterations, second.damping)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("size", [1, 4, 10])
def test_a_solution_does_not_depend_on_the_batches_or_their_order(solver: Solver, size: int) -> None:
    matrices, v = spread(9, n=10), normal(9, seed=1)
    if isinstance(solver, LiSSA):  # its steps are batches, so those are held fixed
        solver = replace(solver, step_batches=list(matrices.split(5)))
    reference = solve(matrices, v, solver).vector["x"]
    shuffled = matrices[torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])]
    for order in (matrices, shuffled):
        got = solve(order, v, solver, size=size).vector["x"]
        torch.testing.assert_close(got, reference, rtol=0, atol=1e-5 * float(reference.abs().max()))


def bytes_of(*tensors: Tensor) -> int:
    return sum(value.numel() * value.element_size() for value in tensors)


def zeros(size: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return {"x": torch.zeros(size // 2, dtype=dtype), "y": torch.zeros(size - size // 2, dtype=dtype)}


@pytest.mark.parametrize(
    "solver", [CG(), CG(damping=1.0), LiSSA(), LiSSA.reference(), Arnoldi(), Arnoldi(rank=3, steps=5)]
)
def test_memory_of_the_iterative_solvers_grows_with_the_parameters_and_their_width(solver: Solver) -> None:
    assert solver.memory(zeros(6000)) == 3 * solver.memory(zeros(2000))
    assert solver.memory(zeros(6000)) == 2 * solver.memory(zeros(6000, torch.float32))
    assert solver.memory(zeros(6000)) >= 5 * 8 * 6000  # at the least x, its residual, a direction, a product, a sum


def test_memory_of_a_lanczos_run_covers_its_basis() -> None:
    matrix = spread(40, n=1)
    basis = lanczos(hessian_vector(quadratic, {"x": matrix[0, 0]}, [matrix]), {"x": matrix[0, 0]}, steps=24).basis
    held = bytes_of(*(vector["x"] for vector in basis))
    assert held == 24 * 40 * 8
    assert held < Arnoldi(rank=12).memory({"x": matrix[0, 0]}) < 1.5 * held
    assert Arnoldi(rank=500).memory(zeros(40)) < 2 * 40 * 40 * 8  # a basis has at most as many vectors as entries
    assert CG().memory(zeros(1000)) >= 15 * 1000 * 8
    assert LiSSA(damping=1.0, scale=9.0).memory(zeros(1000)) >= 15 * 1000 * 8  # it looks for negative curvature


def test_memory_of_lissa_counts_the_recursions_that_are_averaged() -> None:
    once = LiSSA.reference()
    assert replace(once, repeats=11).memory(zeros(50)) - once.memory(zeros(50)) == 10 * 50 * 8


def test_memory_of_exact_is_quadratic_and_in_float64() -> None:
    assert Exact().memory(zeros(1000, torch.float32)) >= 2 * 8 * 1000**2
    assert 3.9 < Exact().memory(zeros(2000)) / Exact().memory(zeros(1000)) < 4.0


def test_memory_of_ekfac_covers_its_factors() -> None:
    module = nn.Sequential(nn.Linear(30, 20), nn.Tanh(), nn.LayerNorm(20), nn.Linear(20, 5)).requires_grad_(False)
    params, data = dict(module.named_parameters()), [torch.randn(4, 30, generator=torch.Generator().manual_seed(0))]

    def loss(at: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        outputs: Tensor = torch.func.functional_call(module, dict(at), (batch,))
        return outputs.square().sum(1)

    blocks = blocks_of(module, params)
    eigenvalues = fit(blocks, [loss], params, data)
    factors = [factor for block in blocks if isinstance(block, LinearBlock) for factor in (block.left, block.right)]
    held = bytes_of(*eigenvalues, *factors)
    assert sum(factor.numel() for factor in factors) == 20**2 + 31**2 + 5**2 + 21**2
    assert held <= EKFAC(module=module).memory(params) <= 10 * held
    # A bias alone is a short vector with a large basis.
    assert EKFAC(module=module).memory({"0.bias": params["0.bias"]}) >= 8 * 20**2
