"""Fast paths on SASRec's losses against slow, obviously correct ones."""

from collections.abc import Iterator, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dealrec.influence import CG, directional_scores, influence_scores
from dealrec.influence.hvp import Vector, hessian_vector, mean_gradient
from dealrec.surrogate import Batches, Negatives, SASRec, Units, make_units, per_sample_loss, plan, unit_losses
from dealrec.surrogate.units import Batch, batch

N_ITEMS = 9
SEQUENCES = st.lists(st.lists(st.integers(1, N_ITEMS), min_size=2, max_size=7), min_size=1, max_size=7)


def drawn_model(*, seed: int = 0, dim: int = 4, layers: int = 1) -> SASRec:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SASRec(N_ITEMS, dim=dim, layers=layers, heads=2, max_length=8, dropout=0.3).double()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def batches_of(units: Units, *, size: int, share: bool = False) -> Batches:
    negatives = Negatives(N_ITEMS, 2, 5, share)
    return Batches(units, negatives, plan(units, batch_size=size))


def one_by_one(units: Units, negatives: Negatives) -> Iterator[Batch]:
    return (batch(units, negatives, torch.tensor([i])) for i in range(len(units)))


def slow_directional_scores(model: SASRec, units: Units, negatives: Negatives, vector: Vector) -> Tensor:
    """One sample, one backward pass, one inner product at a time."""
    model.eval()
    parameters = dict(model.named_parameters())
    scores = []
    for single in one_by_one(units, negatives):
        gradients = torch.autograd.grad(
            unit_losses(model, single).sum(), [parameters[name] for name in vector], allow_unused=True
        )
        pairs = zip(gradients, vector.values(), strict=True)
        scores.append(sum((g * v).sum() for g, v in pairs if g is not None))
    return torch.stack([torch.as_tensor(score) for score in scores])


def chosen(model: SASRec, prefix: str) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in model.named_parameters() if name.startswith(prefix)}


def random_vector(like: dict[str, Tensor]) -> Vector:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(value.shape, generator=generator, dtype=value.dtype) for name, value in like.items()}


@pytest.mark.slow
@settings(deadline=None, max_examples=15, derandomize=True)
@given(SEQUENCES, st.booleans(), st.integers(1, 8), st.sampled_from(["", "layers.0.", "item_embedding"]))
def test_directional_scores_match_a_loop_of_single_gradients(
    sequences: list[list[int]], whole: bool, size: int, prefix: str
) -> None:
    model, units = drawn_model(), make_units(sequences, whole=whole)
    batches = batches_of(units, size=size)
    params = chosen(model, prefix)
    vector = random_vector(params)
    got = batches.restore_order(directional_scores(per_sample_loss(model), params, batches, vector))
    torch.testing.assert_close(
        got, slow_directional_scores(model, units, batches.negatives, vector), rtol=1e-6, atol=1e-6
    )


@pytest.mark.slow
def test_hessian_vector_matches_the_explicit_hessian_of_the_last_block() -> None:
    model = drawn_model(layers=2)
    units = make_units([[1, 2, 3, 4, 5], [6, 7], [3, 1, 4], [2, 2, 8, 1]], whole=True)
    batches = batches_of(units, size=3)
    params, loss = chosen(model, "layers.1."), per_sample_loss(model)
    shapes = [value.shape for value in params.values()]

    def mean_loss(flat: Tensor) -> Tensor:
        parts = flat.split([shape.numel() for shape in shapes])
        at = {name: part.view(shape) for name, part, shape in zip(params, parts, shapes, strict=True)}
        return torch.stack([loss(at, single).sum() for single in one_by_one(units, batches.negatives)]).mean()

    # Reverse over reverse: torch 2.13's own torch.func.hessian is wrong in the LayerNorm weights (pytorch#196700).
    at_point = torch.cat([value.flatten() for value in params.values()])
    hessian = torch.autograd.functional.hessian(mean_loss, at_point)
    vector = random_vector(params)
    product = hessian_vector(loss, params, batches)(vector)
    expected = hessian @ torch.cat([value.flatten() for value in vector.values()])
    assert float(hessian.abs().max()) > 0.01
    torch.testing.assert_close(torch.cat([value.flatten() for value in product.values()]), expected)


def test_hessian_vector_of_a_small_function_by_hand() -> None:
    def loss(params: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        a, b = params["a"], params["b"]
        return batch * a**3 * b + b.sin()

    at = {"a": torch.tensor(2.0, dtype=torch.float64), "b": torch.tensor(0.5, dtype=torch.float64)}
    product = hessian_vector(loss, at, [torch.tensor([1.0, 2.0]), torch.tensor([6.0])])  # mean of batch: 3
    got = product({"a": torch.tensor(1.0, dtype=torch.float64), "b": torch.tensor(10.0, dtype=torch.float64)})
    mixed = 3 * 3 * 2.0**2  # d2/da db
    assert float(got["a"]) == pytest.approx(3 * 6 * 2.0 * 0.5 + mixed * 10)
    assert float(got["b"]) == pytest.approx(mixed - float(at["b"].sin()) * 10)


@pytest.mark.parametrize("share", [False, True])
def test_the_mean_gradient_matches_a_backward_pass(share: bool) -> None:
    model = drawn_model()
    units = make_units([[1, 2, 3, 4], [5, 6], [7, 8, 9]], whole=True)
    batches = batches_of(units, size=2, share=share)
    got = mean_gradient(per_sample_loss(model), chosen(model, ""), batches)
    model.eval()
    torch.stack([unit_losses(model, one).sum() for one in one_by_one(units, batches.negatives)]).mean().backward()
    for name, value in model.named_parameters():
        assert value.grad is not None
        torch.testing.assert_close(got[name], value.grad, rtol=1e-6, atol=1e-8)


def scores_of(units: Units, negatives: Negatives, order: list[Tensor], valid: Batches) -> Tensor:
    model = drawn_model(layers=2)
    batches = Batches(units, negatives, order)
    solver = CG(damping=1.0, tol=1e-10)
    params = chosen(model, "layers.1.")
    found = influence_scores(per_sample_loss(model), params, batches, solver=solver, target_batches=valid)
    return batches.restore_order(found)


@pytest.mark.slow
@pytest.mark.parametrize("share", [False, True])
def test_scores_do_not_depend_on_batching_or_order(share: bool) -> None:
    units = make_units([[1, 2, 3, 4, 5], [6, 7], [3, 1, 4], [2, 2, 8, 1], [9, 1], [5, 4, 3, 2, 1, 6]], whole=True)
    valid = batches_of(make_units([[1, 3, 5], [2, 4]], whole=False), size=2)
    negatives = Negatives(N_ITEMS, 2, 5, share)
    reference = scores_of(units, negatives, [torch.arange(6)], valid)
    for order in (
        plan(units, batch_size=1),
        plan(units, batch_size=4),
        plan(units, batch_size=2, generator=torch.Generator().manual_seed(3)),
        [torch.tensor([5, 0]), torch.tensor([3]), torch.tensor([4, 1, 2])],
    ):
        got = scores_of(units, negatives, order, valid)
        torch.testing.assert_close(got, reference, rtol=0, atol=1e-6 * float(reference.abs().max()))


def test_restored_order_undoes_the_plan() -> None:
    units = make_units([[1, 2], [1, 2, 3, 4], [1, 2, 3]], whole=True)
    batches = batches_of(units, size=2)
    assert torch.cat(batches.order).tolist() == [1, 2, 0]
    assert batches.restore_order(torch.tensor([4.0, 3.0, 2.0])).tolist() == [2.0, 4.0, 3.0]


def test_scoring_leaves_no_gradients_behind() -> None:
    model, units = drawn_model(), make_units([[1, 2, 3], [4, 5]], whole=True)
    params = {name: value.detach() for name, value in model.named_parameters()}
    influence_scores(per_sample_loss(model), params, batches_of(units, size=2), solver=CG(tol=0.1))
    assert all(value.grad is None for value in model.parameters())
