"""NaN, empties, and batches that cannot be read twice."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from dealrec.errors import NonFinite, NotConverged
from dealrec.influence import CG, Arnoldi, Exact, LiSSA, directional_scores, influence_scores, inverse_hvp
from dealrec.influence.hvp import hessian_vector, mean_gradient
from dealrec.influence.solvers import Solver

AT = {"w": torch.ones(2)}
DATA = [torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 1.0], [2.0, 1.0]])]
SOLVERS: list[Solver] = [
    CG(),
    CG(damping=0.1),
    Exact(),
    Arnoldi(),
    Arnoldi(damping=0.1, allow_unconverged=True),
    LiSSA(depth=20, allow_unconverged=True),
    LiSSA.reference(),
]


def loss(params: Mapping[str, Tensor], batch: Tensor) -> Tensor:
    return (batch @ params["w"]).square() + params["w"].square().sum()


def spoilt(batch: int, row: int, value: float = torch.nan) -> list[Tensor]:
    data = [part.clone() for part in DATA]
    data[batch][row, 0] = value
    return data


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_non_finite_number_in_the_data_is_an_error_that_names_the_sample(solver: Solver, value: float) -> None:
    with pytest.raises(NonFinite, match="positions 3"):
        influence_scores(loss, AT, spoilt(1, 1, value), solver=solver)
    with pytest.raises(NonFinite, match="positions 2"):
        influence_scores(loss, AT, DATA, solver=solver, target_batches=spoilt(1, 0, value))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("solver", SOLVERS)
def test_one_in_the_training_data_is_found_when_the_target_is_clean(solver: Solver, value: float) -> None:
    with pytest.raises(NonFinite):
        influence_scores(loss, AT, spoilt(0, 0, value), solver=solver, target_batches=DATA)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("depth", [3, 120])
def test_one_that_enters_the_recursion_only_is_an_error(value: float, depth: int) -> None:
    solver = LiSSA(damping=0.1, scale=50.0, depth=depth, allow_unconverged=True, step_batches=spoilt(0, 1, value))
    with pytest.raises(NotConverged, match="diverged, or met NaN"):
        influence_scores(loss, AT, DATA, solver=solver)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_non_finite_weight_is_an_error(solver: Solver, value: float) -> None:
    with pytest.raises(NonFinite):
        influence_scores(loss, {"w": torch.tensor([1.0, value])}, DATA, solver=solver)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_non_finite_vector_is_an_error(solver: Solver) -> None:
    with pytest.raises(NonFinite):
        inverse_hvp(loss, AT, DATA, {"w": torch.tensor([1.0, torch.nan])}, solver=solver)


def test_a_finite_loss_without_a_derivative_is_an_error() -> None:
    def root(params: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        return (batch @ params["w"]).sqrt()

    with pytest.raises(NonFinite, match="gradient"):
        mean_gradient(root, {"w": torch.zeros(2)}, DATA)


def test_a_bad_directional_derivative_is_named_by_its_position() -> None:
    with pytest.raises(NonFinite, match="positions 2 "):
        directional_scores(loss, AT, spoilt(1, 0), AT)


@pytest.mark.parametrize(
    "call",
    [
        lambda: mean_gradient(loss, AT, []),
        lambda: hessian_vector(loss, AT, [])(AT),
        lambda: directional_scores(loss, AT, [], AT),
        lambda: influence_scores(loss, AT, [], solver=CG()),
        lambda: influence_scores(loss, AT, DATA, solver=CG(), target_batches=[]),
        *[
            lambda solver=solver: influence_scores(loss, AT, [], solver=solver, target_batches=DATA)
            for solver in SOLVERS
        ],
    ],
)
def test_no_batches_is_an_error(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="batches is empty"):
        call()


@pytest.mark.parametrize("solver", SOLVERS)
def test_batches_that_can_be_read_only_once_are_an_error(solver: Solver) -> None:
    with pytest.raises(ValueError, match="more than once"):
        influence_scores(loss, AT, iter(DATA), solver=solver)
