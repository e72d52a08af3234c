"""What influence takes of a surrogate, against plain backward passes: every kind, every loss, all parameters."""

import pytest
import torch
from torch import Tensor

from dealrec.influence import directional_scores
from dealrec.influence.hvp import Vector, hessian_vector, mean_gradient
from dealrec.surrogate import Batches, LossName, Surrogate, per_sample_loss, plan, unit_losses
from tests.surrogate.conftest import batches_of, drawn, every_kind, every_loss, some_units


def all_parameters(model: Surrogate) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in model.named_parameters()}


def random_vector(model: Surrogate) -> Vector:
    generator = torch.Generator().manual_seed(1)
    params = all_parameters(model)
    return {name: torch.randn(value.shape, generator=generator, dtype=value.dtype) for name, value in params.items()}


def single_losses(model: Surrogate, batches: Batches, *, loss: LossName) -> list[Tensor]:
    """The loss of each unit in a batch of its own, without padding, in the units' order."""
    return [unit_losses(model, batches.only(torch.tensor([i]))[0], loss=loss)[0] for i in range(len(batches.units))]


def slopes(model: Surrogate, losses: list[Tensor], vector: Vector) -> Tensor:
    """One sample, one backward pass, one inner product at a time."""
    found = []
    for value in losses:
        gradients = torch.autograd.grad(value, list(model.parameters()), materialize_grads=True, retain_graph=True)
        found.append(sum((g * v).sum() for g, v in zip(gradients, vector.values(), strict=True)))
    return torch.stack([torch.as_tensor(slope) for slope in found])


@every_kind
@every_loss
@pytest.mark.parametrize("whole", [True, False])
def test_directional_scores_match_a_loop_of_single_gradients(kind: str, loss: LossName, whole: bool) -> None:
    model = drawn(kind)
    batches, vector = batches_of(model, some_units(whole=whole)), random_vector(model)
    got = directional_scores(per_sample_loss(model, loss=loss), all_parameters(model), batches, vector)
    expected = slopes(model, single_losses(model, batches, loss=loss), vector)
    assert float(expected.abs().min()) > 1e-3
    torch.testing.assert_close(batches.restore_order(got), expected)


@every_kind
@every_loss
def test_directional_scores_match_differences_of_losses(kind: str, loss: LossName) -> None:
    """No derivative at all: a part of the model that no gradient goes through would show here alone."""
    model, step = drawn(kind), 1e-5
    batches, vector = batches_of(model, some_units(whole=True), size=5), random_vector(model)
    function, params = per_sample_loss(model, loss=loss), all_parameters(model)
    ahead, behind = (
        function({name: value + sign * step * vector[name] for name, value in params.items()}, batches[0])
        for sign in (1, -1)
    )
    got = directional_scores(function, params, batches, vector)
    torch.testing.assert_close(got, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-6)


@every_kind
@every_loss
def test_directional_scores_depend_on_neither_batch_size_nor_order(kind: str, loss: LossName) -> None:
    model, units = drawn(kind), some_units(whole=True)
    orders = [
        plan(units, batch_size=1),
        plan(units, batch_size=2, generator=torch.Generator().manual_seed(3)),
        [torch.tensor([4, 0]), torch.tensor([2, 1, 3])],
        [torch.arange(5)],
    ]
    found = []
    for order in orders:
        batches = batches_of(model, units, order=order)
        scores = directional_scores(
            per_sample_loss(model, loss=loss), all_parameters(model), batches, random_vector(model)
        )
        found.append(batches.restore_order(scores))
    for scores in found[1:]:
        torch.testing.assert_close(scores, found[0])


@every_kind
@every_loss
def test_the_mean_gradient_matches_a_backward_pass(kind: str, loss: LossName) -> None:
    model = drawn(kind)
    batches = batches_of(model, some_units(whole=True))
    got = mean_gradient(per_sample_loss(model, loss=loss), all_parameters(model), batches)
    mean = torch.stack(single_losses(model, batches, loss=loss)).mean()
    expected = torch.autograd.grad(mean, list(model.parameters()), materialize_grads=True)
    for value, other in zip(got.values(), expected, strict=True):
        torch.testing.assert_close(value, other)


@every_kind
@every_loss
def test_hessian_vector_products_match_a_double_backward_pass(kind: str, loss: LossName) -> None:
    model = drawn(kind, layers=2)
    batches, vector = batches_of(model, some_units(whole=True)), random_vector(model)
    product = hessian_vector(per_sample_loss(model, loss=loss), all_parameters(model), batches)(vector)
    parameters = list(model.parameters())
    mean = torch.stack(single_losses(model, batches, loss=loss)).mean()
    gradient = torch.autograd.grad(mean, parameters, create_graph=True, materialize_grads=True)
    slope = torch.stack([(g * v).sum() for g, v in zip(gradient, vector.values(), strict=True)]).sum()
    expected = torch.autograd.grad(slope, parameters, materialize_grads=True)
    assert max(float(value.abs().max()) for value in expected) > 0.1
    for value, other in zip(product.values(), expected, strict=True):
        torch.testing.assert_close(value, other)
