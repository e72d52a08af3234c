"""EKFAC against the exact Gauss-Newton matrix, a loop of single samples, and hand-made LayerNorm gradients."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.func import functional_call

from dealrec.errors import ModelError, NonFinite, NotConverged
from dealrec.influence import EKFAC, Exact, Solution, influence, inverse_hvp
from dealrec.influence.ekfac import fit
from dealrec.influence.hvp import Params, PerSampleLoss, Vector, mean_gradient
from dealrec.influence.layers import LinearBlock, NormBlock, blocks_of
from dealrec.surrogate import Negatives, SASRec, make_units, per_sample_loss
from dealrec.surrogate.units import Batch, batch

M = TypeVar("M", bound=nn.Module)
Data = tuple[Tensor, ...]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(module: M, *, seed: int = 0) -> M:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    return module.requires_grad_(False)


def params_of(module: nn.Module, *names: str) -> dict[str, Tensor]:
    found = {name: value.detach() for name, value in module.named_parameters()}
    return {name: found[name] for name in names} if names else found


def random_vector(like: Params, *, seed: int = 9) -> Vector:
    return {name: normal(*value.shape, seed=seed + place) for place, (name, value) in enumerate(like.items())}


def squared_error(module: nn.Module) -> PerSampleLoss:
    """Data: x [B, ..., in], y [B, ..., out]; the sum over everything but the samples."""

    def loss(params: Params, data: Data) -> Tensor:
        error: Tensor = functional_call(module, dict(params), (data[0],)) - data[1]
        return 0.5 * error.square().flatten(1).sum(1)

    return loss


def single_outputs(module: nn.Module, outputs: int) -> list[PerSampleLoss]:
    """sqrt(K) output_k for each of the K outputs: the mean of their outer products is J^T J."""

    def loss_of(k: int) -> PerSampleLoss:
        return lambda params, data: outputs**0.5 * functional_call(module, dict(params), (data[0],)).flatten(1)[:, k]

    return [loss_of(k) for k in range(outputs)]


def assert_equal_vectors(got: Vector, expected: Vector) -> None:
    assert list(got) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("chosen", [("weight", "bias"), ("weight",), ("bias",), ("bias", "weight")])
@pytest.mark.parametrize("size", [1, 4, 10])
def test_a_linear_layer_under_squared_error_is_solved_exactly(chosen: tuple[str, ...], size: int) -> None:
    """There H is the Gauss-Newton matrix, and E[a a^T] (x) I."""
    layer = drawn(nn.Linear(4, 3))
    batches = list(zip(normal(10, 4, seed=1).split(size), normal(10, 3, seed=2).split(size), strict=True))
    params, loss = params_of(layer, *chosen), squared_error(layer)
    vector = random_vector(params)
    solver = EKFAC(module=layer, pseudo_losses=single_outputs(layer, 3), damping=0.1)
    found = inverse_hvp(loss, params, batches, vector, solver=solver)
    assert_equal_vectors(found.vector, inverse_hvp(loss, params, batches, vector, solver=Exact(damping=0.1)).vector)
    assert found.converged
    assert found.damping == 0.1
    assert found.residual < 1e-12


class Padded(nn.Module):
    """Linear, then a fixed mixture of its outputs; positions whose input is marked by 100 in its first column are 0."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.mixture = nn.Linear(2, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        counted = (x[..., :1] != 100).to(x.dtype)
        mixed: Tensor = self.mixture(self.layer(x)) * counted
        return mixed


def test_positions_and_a_mixture_behind_the_layer_are_solved_exactly_and_padding_changes_nothing() -> None:
    """H is the mean over samples of sum_t a_t a_t^T, (x) C^T C."""
    module, x = drawn(Padded()), normal(6, 3, 3, seed=1)
    x[::2, 2:], x[3, 1:] = 100.0, 100.0
    x[::2, 2:, 1] = -70.0  # padding that would turn the basis, were it counted
    params, data = params_of(module, "layer.weight", "layer.bias"), [(x, normal(6, 3, 2, seed=2))]
    vector, loss = random_vector(params), squared_error(module)
    solver = EKFAC(module=module, pseudo_losses=single_outputs(module, 6), damping=0.2)
    found = inverse_hvp(loss, params, data, vector, solver=solver)
    assert_equal_vectors(found.vector, inverse_hvp(loss, params, data, vector, solver=Exact(damping=0.2)).vector)


@pytest.mark.parametrize("chosen", [("weight", "bias"), ("bias",)])
def test_a_layer_norm_is_diagonal_with_the_second_moments_of_its_gradients(chosen: tuple[str, ...]) -> None:
    module, x, y = drawn(nn.LayerNorm(3)), normal(5, 2, 3, seed=1), normal(5, 2, 3, seed=2)
    params = params_of(module, *chosen)
    vector = random_vector(params)
    solver = EKFAC(module=module, damping=0.3)
    found = inverse_hvp(squared_error(module), params, [(x, y)], vector, solver=solver).vector
    normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + module.eps).sqrt()
    error = normed * module.weight.detach() + module.bias.detach() - y
    moments = {"weight": (error * normed).sum(1).square().mean(0), "bias": error.sum(1).square().mean(0)}
    assert_equal_vectors(found, {name: vector[name] / (moments[name] + 0.3) for name in chosen})


def sasrec_problem(*, n: int, share: bool = False) -> tuple[SASRec, Batch]:
    """n samples of uneven length, in one batch."""
    model = drawn(SASRec(9, dim=4, layers=2, heads=2, max_length=8, dropout=0.3))
    generator = torch.Generator().manual_seed(4)
    lengths = torch.randint(2, 8, (n,), generator=generator).tolist()
    sequences = [torch.randint(1, 10, (length,), generator=generator).tolist() for length in lengths]
    units = make_units(sequences, whole=True)
    negatives = Negatives(9, 2, 1, share=share)
    return model, batch(units, negatives, torch.arange(len(units)))


def rows(data: Batch, places: Tensor) -> Batch:
    return {key: value[places] for key, value in data.items()}


def last_block(model: SASRec) -> dict[str, Tensor]:
    return {
        name: value for name, value in params_of(model).items() if name.startswith(f"layers.{len(model.layers) - 1}")
    }


@pytest.mark.parametrize("share", [False, True])
def test_eigenvalues_match_a_loop_of_single_gradients(share: bool) -> None:
    model, data = sasrec_problem(n=26, share=share)
    loss, params = per_sample_loss(model), last_block(model)
    blocks = blocks_of(model, params)
    assert {type(block) for block in blocks} == {LinearBlock, NormBlock}
    eigenvalues = fit(blocks, [loss], params, [rows(data, part) for part in torch.arange(26).split(7)])
    squares: list[Tensor] = [torch.zeros_like(values) for values in eigenvalues]
    for place in range(26):
        single = mean_gradient(loss, params, [rows(data, torch.tensor([place]))])
        squares = [total + block.rotate(single).square() for total, block in zip(squares, blocks, strict=True)]
    for got, total in zip(eigenvalues, squares, strict=True):
        torch.testing.assert_close(got, total / 26)


class Logits(nn.Module):
    """Every logit that SASRec's loss uses, positives first: [B, T, 1 + N]."""

    def __init__(self, model: SASRec) -> None:
        super().__init__()
        self.model = model

    def forward(self, data: Batch) -> Tensor:
        items = torch.cat([data["targets"].unsqueeze(-1), data["negatives"]], dim=-1)
        return torch.einsum("btd,btnd->btn", self.model(data["items"]), self.model.item_embedding(items))


def logits_of(model: SASRec, params: Params, data: Batch) -> Tensor:
    found: Tensor = functional_call(Logits(model), {f"model.{name}": value for name, value in params.items()}, (data,))
    return found


def logit_curvature(logits: Tensor, data: Batch) -> Tensor:
    """Second derivative of a sample's loss in each logit, [B, T, 1 + N]."""
    share = torch.ones_like(logits)
    share[..., 1:] /= logits.shape[-1] - 1
    weights: Tensor = data["weights"].to(logits.dtype).unsqueeze(-1)
    return weights * share * logits.sigmoid() * (1 - logits.sigmoid())


def random_signs(model: SASRec, seed: int) -> PerSampleLoss:
    """sum of e sqrt(curvature) logit, e = +-1: the outer product of its gradient has the Gauss-Newton as its mean."""

    def loss(params: Params, data: Batch) -> Tensor:
        logits = logits_of(model, params, data)
        signs = normal(*logits.shape, seed=seed).sign()
        return (signs * logit_curvature(logits.detach(), data).sqrt() * logits).flatten(1).sum(1)

    return loss


def exact_gauss_newton(model: SASRec, params: Params, data: Batch) -> Tensor:
    """(1/n) sum over samples and logits of curvature J J^T."""
    jacobian = torch.func.jacrev(lambda at: logits_of(model, at, data).flatten())(dict(params))
    joined = torch.cat([part.flatten(1) for part in jacobian.values()], dim=1)  # [B T (1 + N), p]
    curvature = logit_curvature(logits_of(model, params, data), data).flatten()
    matrix: Tensor = (joined.T * curvature) @ joined / len(data["items"])
    return matrix


def spearman(left: Tensor, right: Tensor) -> float:
    return float(spearmanr(left.numpy(), right.numpy()).statistic)


@pytest.mark.slow
def test_sasrec_scores_rank_as_those_of_the_exact_gauss_newton() -> None:
    model, data = sasrec_problem(n=100)
    loss, params = per_sample_loss(model), last_block(model)
    target, train = [rows(data, torch.arange(25))], [rows(data, torch.arange(25, 100))]
    solver = EKFAC(module=model, pseudo_losses=[random_signs(model, seed) for seed in range(12)])
    found = influence(loss, params, train, solver=solver, target_batches=target)

    def flat(part: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([part[name].flatten() for name in params])

    vector = flat(mean_gradient(loss, params, target))
    each = torch.stack([flat(mean_gradient(loss, params, [rows(train[0], torch.tensor([i]))])) for i in range(75)])
    matrix, layers = exact_gauss_newton(model, params, train[0]), [name.rpartition(".")[0] for name in params]
    layer = torch.cat(
        [torch.full((params[n].numel(),), layers.index(of)) for n, of in zip(params, layers, strict=True)]
    )
    damping = found.solution.damping * torch.eye(len(matrix), dtype=torch.float64)
    by_layer = each @ torch.linalg.solve(matrix * (layer == layer.unsqueeze(1)) + damping, vector)
    whole = each @ torch.linalg.solve(matrix + damping, vector)
    assert spearman(found.scores, by_layer) > 0.9
    assert spearman(found.scores, whole) > 0.8
    assert spearman(each @ vector, whole) < 0.7  # the curvature matters here


def mlp_problem() -> tuple[nn.Module, list[Data]]:
    module = drawn(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.LayerNorm(4), nn.Linear(4, 2)))
    return module, list(zip(normal(12, 3, seed=1).split(1), normal(12, 2, seed=2).split(1), strict=True))


def joined(data: list[Data], order: list[int], size: int) -> list[Data]:
    x, y = (torch.cat([data[i][part] for i in order]) for part in range(2))
    return list(zip(x.split(size), y.split(size), strict=True))


def solve_mlp(batches: list[Data], *, module: nn.Module, vector: Vector | None = None) -> Solution:
    params = params_of(module)
    vector = random_vector(params) if vector is None else vector
    solver = EKFAC(module=module, pseudo_losses=single_outputs(module, 2))
    return inverse_hvp(squared_error(module), params, batches, vector, solver=solver)


def test_the_solution_does_not_depend_on_batching_or_order_and_repeats_itself() -> None:
    module, data = mlp_problem()
    reference = solve_mlp(joined(data, list(range(12)), 12), module=module)
    for order, size in ((list(range(12)), 5), (list(range(11, -1, -1)), 1), ([3, 1, 2, 0, *range(4, 12)], 7)):
        got = solve_mlp(joined(data, order, size), module=module)
        assert got.damping == pytest.approx(reference.damping)
        assert_equal_vectors(got.vector, reference.vector)
    again = solve_mlp(joined(data, list(range(12)), 12), module=module)
    assert all(torch.equal(again.vector[name], value) for name, value in reference.vector.items())


def test_the_default_damping_is_a_tenth_of_the_mean_eigenvalue() -> None:
    module, data = mlp_problem()
    blocks = blocks_of(module, params_of(module))
    eigenvalues = fit(blocks, single_outputs(module, 2), params_of(module), data)
    mean = float(torch.cat([values.flatten() for values in eigenvalues]).mean())
    assert solve_mlp(data, module=module).damping == pytest.approx(0.1 * mean)


def test_nothing_is_left_behind() -> None:
    module, data = mlp_problem()
    solve_mlp(data, module=module.requires_grad_(True))
    assert all(value.grad is None for value in module.parameters())
    assert all(not child._forward_hooks for child in module.modules())


class Loops(nn.Module):
    """Uses a layer twice, a weight outside of its layer, and a layer not at all."""

    def __init__(self, *, twice: bool = False, outside: bool = False, flat: bool = False) -> None:
        super().__init__()
        self.table, self.used, self.idle = nn.Embedding(5, 2), nn.Linear(2, 2), nn.Linear(2, 2)
        self.twice, self.outside, self.flat = twice, outside, flat

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.used(x.flatten(0, 1)).view_as(x) if self.flat else self.used(x)
        y = y + self.table.weight[0]
        y = self.used(y) if self.twice else y
        return y @ self.used.weight.T if self.outside else y


@pytest.mark.parametrize(
    ("module", "chosen", "match"),
    [
        (Loops(), "table.weight", r"which table\.weight belong to neither"),
        (Loops(twice=True), "used.weight", r"used\.weight is called 2 times"),
        (Loops(), "idle.bias", r"idle\.bias is called 0 times"),
        (Loops(outside=True), "used.weight", r"used\.weight is not that of"),
        (Loops(flat=True), "used.bias", r"used\.bias got an input of shape \[12, 2\] for 4 samples"),
    ],
)
def test_layers_that_the_factors_cannot_describe_are_refused(module: Loops, chosen: str, match: str) -> None:
    params = params_of(drawn(module), chosen)
    data = [(normal(4, 3, 2, seed=1), normal(4, 3, 2, seed=2))]
    with pytest.raises(ModelError, match=match) as caught:
        inverse_hvp(squared_error(module), params, data, random_vector(params), solver=EKFAC(module=module))
    assert "CG" in caught.value.remedy


def test_an_unused_name_and_an_empty_list_of_losses_are_refused() -> None:
    module, data = mlp_problem()
    params = params_of(module)
    with pytest.raises(ModelError, match="elsewhere"):
        blocks_of(module, {"elsewhere": torch.zeros(1)})
    with pytest.raises(ValueError, match="pseudo_losses is empty"):
        inverse_hvp(
            squared_error(module), params, data, random_vector(params), solver=EKFAC(module=module, pseudo_losses=[])
        )


def test_no_damping_is_refused_where_an_eigenvalue_is_zero() -> None:
    layer = drawn(nn.Linear(2, 1))
    data = [(torch.zeros(3, 2, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64))]
    params = params_of(layer)
    with pytest.raises(NotConverged, match="smallest eigenvalue") as caught:
        inverse_hvp(squared_error(layer), params, data, random_vector(params), solver=EKFAC(module=layer, damping=0.0))
    assert "damping" in caught.value.remedy


def nan_in_data(module: nn.Module, data: list[Data]) -> list[Data]:
    data[5][0][0, 1] = torch.nan
    return data


def inf_in_a_weight(module: nn.Module, data: list[Data]) -> list[Data]:
    with torch.no_grad():
        next(module.parameters())[0, 0] = torch.inf
    for x, _ in data:
        x[:, 0] = 0.0  # inf times 0
    return data


@pytest.mark.parametrize(
    ("spoil", "match"), [(nan_in_data, "a loss .* positions 5 "), (inf_in_a_weight, "a loss .* positions 0, ")]
)
def test_nan_and_infinity_are_errors(spoil: Callable[[nn.Module, list[Data]], list[Data]], match: str) -> None:
    module, data = mlp_problem()
    vector = random_vector(params_of(module))
    with pytest.raises(NonFinite, match=match):
        solve_mlp(joined(spoil(module, data), list(range(12)), 5), module=module, vector=vector)


def test_a_pseudo_loss_whose_gradient_is_not_finite_is_an_error() -> None:
    module, data = mlp_problem()
    params = params_of(module)

    def root(at: Params, part: Data) -> Tensor:
        outputs: Tensor = functional_call(module, dict(at), (part[0],))
        return (outputs * 0.0).abs().sqrt().sum(1)  # finite, without a derivative at 0

    with pytest.raises(NonFinite, match=r"gradient at a layer's output .* positions 0 "):
        inverse_hvp(
            squared_error(module),
            params,
            data,
            random_vector(params),
            solver=EKFAC(module=module, pseudo_losses=[root]),
        )


def test_batches_must_be_there_and_readable_twice() -> None:
    module, data = mlp_problem()
    params, solver = params_of(module), EKFAC(module=module)
    unreadable: list[Iterable[Data]] = [[], iter(data)]
    for batches in unreadable:
        with pytest.raises(ValueError, match="batches is empty, or cannot be iterated over more than once"):
            inverse_hvp(squared_error(module), params, batches, random_vector(params), solver=solver)
