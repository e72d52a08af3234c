"""The example of a surrogate of one's own: short, and scored exactly as the built-in ones are."""

import runpy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dealrec.influence import CG, Exact, directional_scores, influence_scores
from dealrec.influence.hvp import Params, hessian_vector
from dealrec.influence.solvers import Solver
from dealrec.surrogate import (
    Batches,
    LossName,
    Surrogate,
    make_units,
    mean_ndcg,
    per_sample_loss,
    plan,
    train,
    unit_losses,
)
from tests.surrogate.conftest import batches_of, every_loss, padded, some_units

EXAMPLE = Path(__file__).parents[2] / "examples" / "gpt2_surrogate.py"
N_ITEMS, MAX_LENGTH = 9, 8
DAMPING = 1e-3
UPWARDS = [[(start + step) % N_ITEMS + 1 for step in range(2 + start % 5)] for start in range(36)]


def loaded() -> Surrogate:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Surrogate = runpy.run_path(str(EXAMPLE))["surrogate"](N_ITEMS, MAX_LENGTH)
    return model


@pytest.fixture(scope="module")
def trained() -> Surrogate:
    """The example, trained on steps upwards until it has learnt them; in float64."""
    model, units = loaded(), make_units(UPWARDS, whole=True)
    assert mean_ndcg(model, units, k=10) < 0.7
    train(model, units, None, learning_rate=0.01, batch_size=12, negatives=2, max_epochs=20, patience=20, seed=0)
    assert mean_ndcg(model, units, k=10) > 0.85
    return model.double().eval()


def some_parameters(model: Surrogate, *names: str) -> dict[str, Tensor]:
    return {name: model.get_parameter(name).detach() for name in names}


def single_losses(model: Surrogate, batches: Batches, loss: LossName = "bce") -> list[Tensor]:
    return [unit_losses(model, batches.only(torch.tensor([i]))[0], loss=loss)[0] for i in range(len(batches.units))]


def gradients(values: list[Tensor], model: Surrogate, names: Params) -> Tensor:
    """[n, p]: a backward pass for each value."""
    parameters = [model.get_parameter(name) for name in names]
    rows = [torch.autograd.grad(v, parameters, create_graph=True, materialize_grads=True) for v in values]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


def test_it_has_less_than_thirty_lines() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 30


@pytest.mark.slow
@torch.no_grad()
def test_padding_and_later_items_change_nothing(trained: Surrogate) -> None:
    histories = [[3, 1, 4, 1, 5, 9], [2], [6, 5, 3]]
    items, lengths = padded(histories, extra=2)
    states = trained(items)
    for row, length, history in zip(states, lengths.tolist(), histories, strict=True):
        torch.testing.assert_close(row[:length], trained(torch.tensor([history]))[0])
    torch.testing.assert_close(trained(items[:, :2]), states[:, :2])
    assert trained.scores(trained.next_states(items, lengths)).shape == (3, N_ITEMS)


@every_loss
def test_its_directional_scores_match_a_loop_of_single_gradients(trained: Surrogate, loss: LossName) -> None:
    params = {name: value.detach() for name, value in trained.named_parameters()}
    generator = torch.Generator().manual_seed(1)
    vector = {name: torch.randn(v.shape, generator=generator, dtype=v.dtype) for name, v in params.items()}
    batches = batches_of(trained, some_units(whole=True))
    got = batches.restore_order(directional_scores(per_sample_loss(trained, loss=loss), params, batches, vector))
    flat = torch.cat([value.flatten() for value in vector.values()])
    expected = gradients(single_losses(trained, batches, loss), trained, params).detach() @ flat
    assert float(expected.abs().min()) > 1e-3
    torch.testing.assert_close(got, expected)


def test_its_hessian_vector_products_match_a_double_backward_pass(trained: Surrogate) -> None:
    params = {name: value.detach() for name, value in trained.named_parameters()}
    generator = torch.Generator().manual_seed(1)
    vector = {name: torch.randn(v.shape, generator=generator, dtype=v.dtype) for name, v in params.items()}
    batches = batches_of(trained, some_units(whole=True))
    product = hessian_vector(per_sample_loss(trained), params, batches)(vector)
    mean = torch.stack(single_losses(trained, batches)).mean()
    flat = torch.cat([value.flatten() for value in vector.values()])
    slope = (gradients([mean], trained, params)[0] * flat).sum()
    expected = gradients([slope], trained, params)[0].detach()
    assert float(expected.abs().max()) > 0.1
    torch.testing.assert_close(torch.cat([value.flatten() for value in product.values()]), expected)


@pytest.mark.parametrize("solver", [Exact(damping=DAMPING), CG(damping=DAMPING, tol=1e-10)], ids=["exact", "cg"])
@pytest.mark.slow
def test_its_influence_scores_match_plain_backward_passes(trained: Surrogate, solver: Solver) -> None:
    params = some_parameters(trained, "gpt2.h.1.ln_1.bias")  # 64, in front of the attention
    batches = batches_of(trained, some_units(whole=True))
    got = batches.restore_order(influence_scores(per_sample_loss(trained), params, batches, solver=solver))
    each = gradients(single_losses(trained, batches), trained, params)
    mean = each.mean(0)
    hessian = gradients(list(mean), trained, params).detach()
    assert float(torch.linalg.eigvalsh(hessian)[-1]) > 2 * DAMPING  # so that the Hessian decides
    damped = hessian + DAMPING * torch.eye(len(mean), dtype=torch.float64)
    expected = each.detach() @ torch.linalg.solve(damped, mean.detach()) / len(each)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.slow
def test_its_last_block_is_scored_alike_whatever_the_batches(trained: Surrogate) -> None:
    (glob,) = trained.parameter_globs(["last-block"])
    names = [name for name, _ in trained.named_parameters() if name.startswith(glob.removesuffix("*"))]
    assert len(names) == 12
    params, units = some_parameters(trained, *names), some_units(whole=True)
    found = []
    for size in (2, 5):
        batches = batches_of(trained, units, order=plan(units, batch_size=size))
        scores = influence_scores(per_sample_loss(trained), params, batches, solver=CG(damping=0.3, tol=1e-7))
        found.append(batches.restore_order(scores))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-5 * float(found[0].abs().max()))
