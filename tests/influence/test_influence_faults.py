"""NaN, empties, and batches that cannot be read twice."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from dealrec.errors import NonFinite
from dealrec.influence import CG, Exact, LiSSA, directional_scores, influence_scores, inverse_hvp
from dealrec.influence.hvp import hessian_vector, mean_gradient
from dealrec.influence.solvers import Solver

AT = {"w": torch.ones(2)}
DATA = [torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 1.0], [2.0, 1.0]])]
SOLVERS: list[Solver] = [CG(), CG(damping=0.1), Exact(), LiSSA(depth=20, allow_unconverged=True)]


def loss(params: Mapping[str, Tensor], batch: Tensor) -> Tensor:
    return (batch @ params["w"]).square() + params["w"].square().sum()


def with_nan_at(batch: int, row: int) -> list[Tensor]:
    data = [part.clone() for part in DATA]
    data[batch][row, 0] = torch.nan
    return data


@pytest.mark.parametrize("solver", SOLVERS)
def test_nan_in_the_data_is_an_error_that_names_the_sample(solver: Solver) -> None:
    with pytest.raises(NonFinite, match="positions 3"):
        influence_scores(loss, AT, with_nan_at(1, 1), solver=solver)
    with pytest.raises(NonFinite, match="positions 2"):
        influence_scores(loss, AT, DATA, solver=solver, target_batches=with_nan_at(1, 0))


@pytest.mark.parametrize("solver", SOLVERS)
def test_nan_in_the_training_data_is_found_when_the_target_is_clean(solver: Solver) -> None:
    with pytest.raises(NonFinite):
        influence_scores(loss, AT, with_nan_at(0, 0), solver=solver, target_batches=DATA)


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
        directional_scores(loss, AT, with_nan_at(1, 0), AT)


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
