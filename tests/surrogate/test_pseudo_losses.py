"""The second moment of pseudo gradients against the Gauss-Newton matrix, written out."""

import pytest
import torch
from torch import Tensor

from dealrec.influence.hvp import PerSampleLoss
from dealrec.surrogate import Batches, Cloze, LossName, Surrogate, make_units, pseudo_losses
from dealrec.surrogate.units import Batch
from tests.surrogate.conftest import batches_of, drawn, every_loss, some_units

N_ITEMS, COPIES = 4, 2_000
SEQUENCES = [[1, 2, 4, 3], [3, 1], [2, 2, 1]]  # of 3, 1 and 2 positions, so of several weights


def gauss_newton(model: Surrogate, made: Batch, unit: int, *, loss: LossName) -> Tensor:
    """Sum over positions of weight * J^T H J, J logits by parameters, H the loss's by logits: [p, p]."""
    parameters = list(model.parameters())
    size = sum(parameter.numel() for parameter in parameters)
    total = torch.zeros(size, size, dtype=torch.float64)
    states = model(made["items"][unit : unit + 1])[0]
    for position in made["weights"][unit].nonzero().flatten().tolist():
        items = [int(made["targets"][unit, position]), *made["negatives"][unit, position].tolist()]
        if loss == "sampled-softmax":  # a negative that is the target does not count
            items = [items[0], *(item for item in items[1:] if item != items[0])]
        if loss == "softmax":
            items = list(range(1, N_ITEMS + 1))
        logits = torch.stack([states[position] @ model.item_vectors()[item] for item in items])
        jacobian = torch.stack([flat_gradient(logit, parameters) for logit in logits])
        if loss == "bce":
            shares = torch.tensor([1.0, *[1 / (len(items) - 1)] * (len(items) - 1)])
            outer = torch.diag(shares * logits.sigmoid() * (1 - logits.sigmoid()))
        else:
            p = logits.softmax(0)
            outer = torch.diag(p) - torch.outer(p, p)
        total += made["weights"][unit, position] * (jacobian.T @ outer.detach() @ jacobian)
    return total


def flat_gradient(value: Tensor, parameters: list[torch.nn.Parameter]) -> Tensor:
    gradients = torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in gradients])


def slopes(model: Surrogate, loss: PerSampleLoss, made: Batch, directions: Tensor) -> Tensor:
    """[B, K]: each sample's gradient times directions [p, K]; labels follow from the batch, so all are of one draw."""
    params = {name: value.detach() for name, value in model.named_parameters()}
    columns = []
    for direction in directions.T:
        parts = direction.split([value.numel() for value in params.values()])
        tangent = {name: part.view_as(params[name]) for name, part in zip(params, parts, strict=True)}
        columns.append(torch.func.jvp(lambda at: loss(at, made), (params,), (tangent,))[1])
    return torch.stack(columns, dim=1)


def copied_units(model: Surrogate) -> Batches:
    """Each sequence many times over, with the same negatives and hidden items: a draw of labels for each copy."""
    few = batches_of(model, make_units(SEQUENCES, whole=True))
    units = few.units.take(torch.arange(len(SEQUENCES)).repeat(COPIES))  # with their keys, so with their negatives
    cloze = None
    if few.cloze is not None:
        hidden = torch.tensor([0, 1, 0, 1, 0, 1, 1, 0, 1], dtype=torch.bool)
        cloze = Cloze(hidden.repeat(COPIES), few.cloze.index)
    return Batches(units, few.negatives, [torch.arange(len(units))], cloze)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "loss"),
    [("mf", "bce"), ("mf", "sampled-softmax"), ("mf", "softmax"), ("gru4rec", "bce"), ("bert4rec", "softmax")],
)
def test_pseudo_gradients_have_the_gauss_newton_matrix_as_second_moment(kind: str, loss: LossName) -> None:
    model = drawn(kind, dim=2, n_items=N_ITEMS, max_length=4)
    made = copied_units(model)[0]
    (pseudo,) = pseudo_losses(model, loss=loss, seed=7)
    size = sum(parameter.numel() for parameter in model.parameters())
    directions = torch.randn(size, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gradients = slopes(model, pseudo, made, directions).view(COPIES, len(SEQUENCES), -1)
    for unit in range(len(SEQUENCES)):
        expected = directions.T @ gauss_newton(model, made, unit, loss=loss) @ directions
        got = gradients[:, unit].T @ gradients[:, unit] / COPIES
        assert float((got - expected).norm() / expected.norm()) < 0.08  # about 1 / sqrt(COPIES), and what spreads
        mean = gradients[:, unit].mean(0)
        assert float(mean.norm() / expected.trace().sqrt()) < 0.08  # labels of the model's own: no slope on average


@every_loss
@pytest.mark.parametrize("share", [False, True])
def test_labels_are_drawn_anew_for_each_draw_and_seed_and_repeat_on_a_second_call(loss: LossName, share: bool) -> None:
    model = drawn("sasrec", n_items=9)
    made = batches_of(model, some_units(whole=True), size=5, per_position=4, share=share)[0]
    before = torch.random.get_rng_state()
    first, second = pseudo_losses(model, loss=loss, draws=2, seed=1)
    (other,) = pseudo_losses(model, loss=loss, seed=2)
    (again,) = pseudo_losses(model, loss=loss, seed=1)
    assert torch.equal(first({}, made), first({}, made))
    assert torch.equal(first({}, made), again({}, made))
    assert not torch.allclose(first({}, made), second({}, made))
    assert not torch.allclose(first({}, made), other({}, made))
    assert torch.equal(torch.random.get_rng_state(), before)


@every_loss
@pytest.mark.parametrize("kind", ["sasrec", "bert4rec"])
def test_labels_do_not_depend_on_the_batch(kind: str, loss: LossName) -> None:
    model, units = drawn(kind, n_items=9), some_units(whole=True)
    (pseudo,) = pseudo_losses(model, loss=loss, seed=3)
    found = []
    for size in (1, 2, 50):
        batches = batches_of(model, units, size=size)
        found.append(batches.restore_order(torch.cat([pseudo({}, batch) for batch in batches])))
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[2])
