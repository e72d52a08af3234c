"""Solvers on quadratic losses, whose Hessians are known exactly."""

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dealrec.errors import NotConverged
from dealrec.influence import CG, Exact, LiSSA, Solution, inverse_hvp
from dealrec.influence.solvers import Solver
from dealrec.influence.spectrum import Spectrum


def quadratic(params: Mapping[str, Tensor], batch: Tensor) -> Tensor:
    """x^T A_s x / 2 for matrices A_s [B, d, d]: the Hessian of the mean is the mean of A."""
    x = params["x"]
    return 0.5 * torch.einsum("i,bij,j->b", x, batch, x)


def solve(matrices: Tensor, v: Tensor, solver: Solver, *, size: int = 2) -> Solution:
    """matrices [n, d, d] or one [d, d]."""
    matrices = matrices if matrices.dim() == 3 else matrices.unsqueeze(0)
    params = {"x": torch.full_like(v, 0.5)}
    return inverse_hvp(quadratic, params, list(matrices.split(size)), {"x": v}, solver=solver)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def diagonal(*values: float) -> Tensor:
    return torch.diag(torch.tensor(values, dtype=torch.float64))


def with_spectrum(values: Tensor, *, seed: int = 0) -> Tensor:
    """A dense symmetric matrix with these eigenvalues."""
    rotation, _ = torch.linalg.qr(normal(len(values), len(values), seed=seed))
    matrix: Tensor = rotation @ torch.diag(values) @ rotation.T
    return matrix


def spread(dim: int, *, n: int, noise: float, seed: int = 0) -> Tensor:
    """n positive definite matrices that differ: [n, d, d]."""
    factors = normal(n, dim, dim, seed=seed) * noise
    return torch.eye(dim, dtype=torch.float64) + factors @ factors.transpose(1, 2)


def true_residual(matrices: Tensor, solution: Solution, v: Tensor) -> float:
    mean = matrices.mean(0) if matrices.dim() == 3 else matrices
    x = solution.vector["x"]
    return float((mean @ x + solution.damping * x - v).norm() / v.norm())


@pytest.mark.parametrize(
    ("matrix", "damping"),
    [
        (diagonal(1, 1, 1, 1), 0.0),
        (diagonal(0, 1, 2, 3), 0.1),  # singular
        (diagonal(1e-6, 1e-3, 1, 1e3), 1e-3),  # ill-conditioned
        (diagonal(-0.5, 0.2, 1, 4), 1.0),  # indefinite, lifted by the damping
    ],
)
def test_cg_agrees_with_exact(matrix: Tensor, damping: float) -> None:
    v = normal(4)
    exact = solve(matrix, v, Exact(damping=damping))
    cg = solve(matrix, v, CG(damping=damping, tol=1e-10))
    torch.testing.assert_close(cg.vector["x"], exact.vector["x"], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(exact.vector["x"], v / (matrix.diagonal() + damping))
    assert cg.residual <= 1e-10


def test_cg_and_exact_agree_on_a_dense_ill_conditioned_matrix() -> None:
    matrix = with_spectrum(torch.logspace(-6, 2, 30, dtype=torch.float64))
    v = normal(30, seed=1)
    cg = solve(matrix, v, CG(tol=1e-9))
    exact = solve(matrix, v, Exact(damping=cg.damping))
    assert 1e-2 <= cg.damping <= 0.2  # at least 1e-3 of the largest eigenvalue
    torch.testing.assert_close(cg.vector["x"], exact.vector["x"], rtol=1e-5, atol=1e-6)


def test_the_damping_is_part_of_the_operator() -> None:
    v = torch.ones(2, dtype=torch.float64)
    for solver in (Exact(damping=3.0), CG(damping=3.0, tol=1e-9), LiSSA(damping=3.0, scale=8.0, depth=300, tol=1e-6)):
        got = solve(diagonal(1, 2), v, solver)
        expected = torch.tensor([1 / 4, 1 / 5], dtype=torch.float64)
        torch.testing.assert_close(got.vector["x"], expected, rtol=1e-6, atol=1e-8)
        assert got.damping == 3.0


def test_the_hessian_weighs_samples_not_batches() -> None:
    matrices = torch.stack([diagonal(1, 1), diagonal(1, 1), diagonal(7, 4)])  # mean: 3, 2
    v = torch.ones(2, dtype=torch.float64)
    for solver in (Exact(), CG(damping=0.0, tol=1e-9), LiSSA(damping=0.0, scale=100.0, depth=500, tol=0.05)):
        got = solve(matrices, v, solver, size=2).vector["x"]
        torch.testing.assert_close(got, torch.tensor([1 / 3, 1 / 2], dtype=torch.float64), rtol=0.05, atol=0)


def test_cg_meets_negative_curvature_and_says_what_to_do() -> None:
    with pytest.raises(NotConverged, match="not positive definite") as caught:
        solve(diagonal(-2, 1, 1), normal(3), CG(damping=0.0))
    assert "damping" in caught.value.remedy


@pytest.mark.slow
@settings(deadline=None, max_examples=30, derandomize=True)
@given(dim=st.integers(1, 40), seed=st.integers(0, 10_000), shift=st.floats(-1, 1))
def test_cg_at_its_defaults_solves_any_indefinite_system(dim: int, seed: int, shift: float) -> None:
    drawn = normal(dim, dim, seed=seed)
    matrix = (drawn + drawn.T) / 2 + shift * dim**0.5 * torch.eye(dim, dtype=torch.float64)
    v = normal(dim, seed=seed + 1)
    solution = solve(matrix, v, CG())
    assert solution.converged
    assert solution.residual <= 1e-3
    assert true_residual(matrix, solution, v) <= 1.01e-3


@pytest.mark.parametrize("lowest", [-20.0, -100.0, -300.0])
def test_cg_at_its_defaults_survives_a_lone_negative_eigenvalue(lowest: float) -> None:
    """It hides below a wide positive bulk, where a short Lanczos run hardly sees it."""
    values = torch.linspace(0, 1000, 300, dtype=torch.float64)
    values[0] = lowest
    matrix, v = with_spectrum(values), normal(300, seed=1)
    solution = solve(matrix, v, CG())
    assert solution.damping > -lowest
    assert true_residual(matrix, solution, v) <= 1.01e-3


def test_cg_raises_an_estimated_damping_that_was_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a short Lanczos run misses the most negative eigenvalue altogether."""
    monkeypatch.setattr("dealrec.influence.cg.estimate_spectrum", lambda *_, **__: Spectrum(0.1, 4.0))
    matrix, v = diagonal(-3, 1, 2, 4), normal(4)
    solution = solve(matrix, v, CG())
    assert solution.damping > 3
    assert true_residual(matrix, solution, v) <= 1.01e-3


def test_cg_is_restarted_where_float32_lets_its_residual_drift() -> None:
    values = torch.logspace(-4, 0, 200, dtype=torch.float64)
    matrix, v = with_spectrum(values).float(), normal(200, seed=2).float()
    solution = solve(matrix, v, CG(damping=1e-4, tol=1e-4, max_iter=2000))
    assert solution.residual <= 1e-4
    x = solution.vector["x"].double()
    left = matrix.double() @ x + 1e-4 * x - v.double()
    assert float(left.norm() / v.double().norm()) <= 1.3e-4


def test_cg_stops_at_max_iter() -> None:
    matrix = with_spectrum(torch.logspace(-3, 0, 20, dtype=torch.float64))
    with pytest.raises(NotConverged, match="residual") as caught:
        solve(matrix, normal(20), CG(damping=0.0, max_iter=3))
    assert "max_iter" in caught.value.remedy
    allowed = solve(matrix, normal(20), CG(damping=0.0, max_iter=3, allow_unconverged=True))
    assert not allowed.converged
    assert allowed.residual > 1e-3
    assert allowed.iterations == 3


@pytest.mark.parametrize("solver", [CG(), Exact(damping=1.0), LiSSA(depth=60, damping=1.0)])
def test_a_zero_vector_has_a_zero_solution(solver: Solver) -> None:
    solution = solve(diagonal(1, 2), torch.zeros(2, dtype=torch.float64), solver)
    assert solution.vector["x"].tolist() == [0.0, 0.0]
    assert solution.residual == 0.0


def test_exact_refuses_a_singular_system_without_a_solution() -> None:
    with pytest.raises(NotConverged, match="residual") as caught:
        solve(diagonal(0, 1), torch.ones(2, dtype=torch.float64), Exact())
    assert "damping" in caught.value.remedy


def test_exact_refuses_a_matrix_that_would_not_fit() -> None:
    with pytest.raises(ValueError, match="use CG"):
        solve(diagonal(1, 1, 1), normal(3), Exact(max_parameters=2))


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "dim"), [(0, 1), (1, 3), (2, 5)])
def test_lissa_agrees_with_exact_with_batches_of_one(seed: int, dim: int) -> None:
    matrices, v = spread(dim, n=12, noise=0.4, seed=seed), normal(dim, seed=seed + 1)
    exact = solve(matrices, v, Exact(damping=0.1), size=1).vector["x"]
    lissa = solve(matrices, v, LiSSA(damping=0.1, scale=60.0, depth=300, repeats=2, tol=0.05), size=1)
    assert lissa.iterations == 600
    assert lissa.residual == pytest.approx(true_residual(matrices, lissa, v), rel=1e-6)
    assert float((lissa.vector["x"] - exact).norm() / exact.norm()) <= 0.05  # the residual's bound, H >= I


def test_lissa_repeats_are_averaged_not_added() -> None:
    v = torch.ones(3, dtype=torch.float64)
    once = solve(diagonal(1, 2, 3), v, LiSSA(damping=0.0, scale=10.0, depth=80, repeats=1))
    thrice = solve(diagonal(1, 2, 3), v, LiSSA(damping=0.0, scale=10.0, depth=80, repeats=3))
    torch.testing.assert_close(once.vector["x"], thrice.vector["x"])


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("depth", [30, 5000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lissa_never_returns_a_divergence(allowed: bool, depth: int, dtype: torch.dtype) -> None:
    solver = LiSSA(damping=0.0, scale=1e-3, depth=depth, allow_unconverged=allowed)
    with pytest.raises(NotConverged) as caught:
        solve(diagonal(1, 50).to(dtype), torch.ones(2, dtype=dtype), solver)
    assert "scale" in caught.value.remedy


def test_an_unconverged_lissa_says_so() -> None:
    matrices, v = spread(4, n=10, noise=1.0), normal(4)
    short = LiSSA(damping=0.01, scale=500.0, depth=5)
    with pytest.raises(NotConverged, match="residual"):
        solve(matrices, v, short)
    allowed = solve(matrices, v, LiSSA(damping=0.01, scale=500.0, depth=5, allow_unconverged=True))
    assert not allowed.converged
    assert allowed.residual > 0.1
    assert bool(torch.isfinite(allowed.vector["x"]).all())


def test_lissa_repeats_itself_given_the_seed() -> None:
    matrices, v = spread(4, n=10, noise=0.5), normal(4)

    def run(seed: int) -> Tensor:
        return solve(
            matrices, v, LiSSA(damping=0.1, scale=30.0, depth=60, allow_unconverged=True, seed=seed), size=1
        ).vector["x"]

    before = torch.random.get_rng_state()
    assert torch.equal(run(3), run(3))
    assert not torch.equal(run(3), run(4))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("solver", [CG(tol=1e-8), Exact(), LiSSA(damping=0.0, scale=10.0, depth=150)])
def test_the_vector_may_name_the_parameters_in_any_order(solver: Solver) -> None:
    def loss(params: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        return 0.5 * batch * params["a"].square().sum() + batch * params["b"].square().sum()  # H: 1, 1, 2

    at = {"a": torch.zeros(2, dtype=torch.float64), "b": torch.zeros(1, dtype=torch.float64)}
    vector = {"b": torch.tensor([6.0], dtype=torch.float64), "a": torch.tensor([4.0, 5.0], dtype=torch.float64)}
    found = inverse_hvp(loss, at, [torch.ones(3, dtype=torch.float64)], vector, solver=solver).vector
    torch.testing.assert_close(found["a"], vector["a"], rtol=1e-2, atol=0)
    torch.testing.assert_close(found["b"], vector["b"] / 2, rtol=1e-2, atol=0)


def test_a_vector_of_other_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="parameters"):
        inverse_hvp(quadratic, {"x": torch.zeros(2)}, [torch.eye(2)[None]], {"y": torch.zeros(2)}, solver=Exact())
