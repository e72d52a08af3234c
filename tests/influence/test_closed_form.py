"""Influence of linear and logistic regression against the textbook formulas, in float64."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from dealrec.influence import CG, Exact, LiSSA, directional_scores, influence, influence_scores
from dealrec.influence.hvp import mean_gradient

Data = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Problem:
    x: Tensor  # [n, d]
    y: Tensor  # [n]
    valid_x: Tensor
    valid_y: Tensor
    weights: Tensor  # [d]

    @property
    def params(self) -> dict[str, Tensor]:
        return {"head": self.weights[:2], "tail": self.weights[2:]}

    def batches(self, size: int) -> list[Data]:
        return list(zip(self.x.split(size), self.y.split(size), strict=True))

    def valid_batches(self, size: int) -> list[Data]:
        return list(zip(self.valid_x.split(size), self.valid_y.split(size), strict=True))


def drawn_problem(seed: int, *, n: int = 40, dim: int = 5, binary: bool = False) -> Problem:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, valid_x, truth = normal(n, dim), normal(11, dim), normal(dim)
    y, valid_y = x @ truth + normal(n), valid_x @ truth + normal(11)
    if binary:
        y, valid_y = (y > 0).double(), (valid_y > 0).double()
    return Problem(x, y, valid_x, valid_y, truth + 0.3 * normal(dim))


def weights_of(params: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([params["head"], params["tail"]])


def squared_error(params: Mapping[str, Tensor], batch: Data) -> Tensor:
    x, y = batch
    return 0.5 * (x @ weights_of(params) - y) ** 2


def log_loss(params: Mapping[str, Tensor], batch: Data) -> Tensor:
    x, y = batch
    return torch.nn.functional.binary_cross_entropy_with_logits(x @ weights_of(params), y, reduction="none")


def least_squares_scores(p: Problem, *, damping: float, on_valid: bool = False) -> Tensor:
    """(1/n) r_i x_i^T (X^T X / n + damping I)^-1 mean_j r_j x_j, r the residuals."""
    n, dim = p.x.shape
    hessian = p.x.T @ p.x / n + damping * torch.eye(dim, dtype=torch.float64)
    gradients = (p.x @ p.weights - p.y).unsqueeze(1) * p.x
    target = (p.valid_x @ p.weights - p.valid_y).unsqueeze(1) * p.valid_x if on_valid else gradients
    scores: Tensor = gradients @ torch.linalg.inv(hessian) @ target.mean(0) / n
    return scores


def logistic_scores(p: Problem, *, damping: float, on_valid: bool = False) -> Tensor:
    """The same from explicit gradients (p_i - y_i) x_i and Hessian mean p_i (1 - p_i) x_i x_i^T."""
    n, dim = p.x.shape
    chance = (p.x @ p.weights).sigmoid()
    hessian = (p.x.T * (chance * (1 - chance))) @ p.x / n + damping * torch.eye(dim, dtype=torch.float64)
    gradients = (chance - p.y).unsqueeze(1) * p.x
    target = ((p.valid_x @ p.weights).sigmoid() - p.valid_y).unsqueeze(1) * p.valid_x if on_valid else gradients
    scores: Tensor = gradients @ torch.linalg.inv(hessian) @ target.mean(0) / n
    return scores


def assert_scores_close(got: Tensor, expected: Tensor, *, of_largest: float) -> None:
    """Within a share of the largest absolute score."""
    assert got.shape == expected.shape
    error = float((got - expected).abs().max() / expected.abs().max())
    assert error <= of_largest, f"off by {error:.3g} of the largest score"


@pytest.mark.parametrize("damping", [0.0, 0.1, 3.0])
@pytest.mark.parametrize("on_valid", [False, True])
def test_exact_gives_the_formula_of_linear_regression(damping: float, on_valid: bool) -> None:
    p = drawn_problem(1)
    target = p.valid_batches(4) if on_valid else None
    got = influence_scores(squared_error, p.params, p.batches(7), solver=Exact(damping=damping), target_batches=target)
    assert_scores_close(got, least_squares_scores(p, damping=damping, on_valid=on_valid), of_largest=1e-10)


@pytest.mark.parametrize("damping", [0.0, 0.1, 3.0])
@pytest.mark.parametrize("on_valid", [False, True])
def test_exact_gives_the_formula_of_logistic_regression(damping: float, on_valid: bool) -> None:
    p = drawn_problem(2, binary=True)
    target = p.valid_batches(4) if on_valid else None
    got = influence_scores(log_loss, p.params, p.batches(7), solver=Exact(damping=damping), target_batches=target)
    assert_scores_close(got, logistic_scores(p, damping=damping, on_valid=on_valid), of_largest=1e-10)


@pytest.mark.parametrize("on_valid", [False, True])
def test_cg_at_its_defaults_gives_the_formula_of_linear_regression(on_valid: bool) -> None:
    p = drawn_problem(3)
    found = influence(
        squared_error, p.params, p.batches(7), solver=CG(), target_batches=p.valid_batches(4) if on_valid else None
    )
    assert found.solution.converged
    expected = least_squares_scores(p, damping=found.solution.damping, on_valid=on_valid)
    assert_scores_close(found.scores, expected, of_largest=1e-3)
    # The estimated damping is small enough to leave the undamped ranking as it is.
    assert_scores_close(found.scores, least_squares_scores(p, damping=0.0, on_valid=on_valid), of_largest=1e-2)


def test_cg_at_its_defaults_gives_the_formula_of_logistic_regression() -> None:
    p = drawn_problem(4, binary=True)
    found = influence(log_loss, p.params, p.batches(7), solver=CG())
    assert_scores_close(found.scores, logistic_scores(p, damping=found.solution.damping), of_largest=1e-3)


def test_cg_defaults_hold_in_float32() -> None:
    p = drawn_problem(5)
    single = Problem(p.x.float(), p.y.float(), p.valid_x.float(), p.valid_y.float(), p.weights.float())
    found = influence(squared_error, single.params, single.batches(7), solver=CG())
    assert found.scores.dtype == torch.float32
    assert_scores_close(found.scores, least_squares_scores(p, damping=found.solution.damping), of_largest=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 7])  # 30 = 4 * 7 + 2: the last batch is smaller
def test_lissa_with_a_tolerance_gives_the_formula_of_linear_regression(size: int) -> None:
    p = drawn_problem(6, n=30)
    solver = LiSSA(damping=0.5, scale=150.0, depth=800, tol=0.08)
    found = influence(squared_error, p.params, p.batches(size), solver=solver)
    assert found.solution.residual <= 0.05
    assert_scores_close(found.scores, least_squares_scores(p, damping=0.5), of_largest=0.1)


def test_lissa_at_its_defaults_gives_the_formula_of_logistic_regression() -> None:
    p = drawn_problem(7, binary=True)
    found = influence(log_loss, p.params, p.batches(20), solver=LiSSA(depth=600))
    assert_scores_close(found.scores, logistic_scores(p, damping=found.solution.damping), of_largest=0.1)


def test_the_mean_gradient_weighs_samples_not_batches() -> None:
    p = drawn_problem(8, n=9)
    uneven = [(p.x[:8], p.y[:8]), (p.x[8:], p.y[8:])]
    expected = ((p.x @ p.weights - p.y).unsqueeze(1) * p.x).mean(0)
    torch.testing.assert_close(weights_of(mean_gradient(squared_error, p.params, uneven)), expected)


def test_directional_scores_are_the_gradients_times_the_vector() -> None:
    p = drawn_problem(9)
    vector = torch.arange(5, dtype=torch.float64)
    got = directional_scores(squared_error, p.params, p.batches(6), {"head": vector[:2], "tail": vector[2:]})
    torch.testing.assert_close(got, (p.x @ p.weights - p.y) * (p.x @ vector))


def test_influence_on_the_training_risk_vanishes_at_the_optimum() -> None:
    p = drawn_problem(10)
    optimum = torch.linalg.lstsq(p.x, p.y).solution
    at = Problem(p.x, p.y, p.valid_x, p.valid_y, optimum)
    on_training = influence_scores(squared_error, at.params, at.batches(7), solver=Exact())
    held_out = at.valid_batches(4)
    on_valid = influence_scores(squared_error, at.params, at.batches(7), solver=Exact(), target_batches=held_out)
    assert float(on_training.abs().max()) < 1e-12 * float(on_valid.abs().max())
