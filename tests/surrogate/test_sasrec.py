"""The model's causality and padding, and its loss against plain Python."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dealrec.surrogate import SASRec, draw_negatives, make_units, per_sample_loss, unit_losses
from dealrec.surrogate.units import batch

N_ITEMS = 11
SEQUENCES = st.lists(st.lists(st.integers(1, N_ITEMS), min_size=2, max_size=8), min_size=1, max_size=5)


def drawn_model(*, layers: int = 2, heads: int = 2, seed: int = 0) -> SASRec:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SASRec(N_ITEMS, dim=8, layers=layers, heads=heads, max_length=10, dropout=0.4).double()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


ITEMS = torch.tensor([[3, 1, 4, 1, 5, 9]])


def test_padding_changes_nothing() -> None:
    model = drawn_model()
    padded = torch.nn.functional.pad(ITEMS, (0, 4))
    torch.testing.assert_close(model(padded)[:, :6], model(ITEMS))


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_prefix_has_the_states_that_it_has_within_its_sequence(length: int) -> None:
    model = drawn_model()
    torch.testing.assert_close(model(ITEMS[:, :length]), model(ITEMS)[:, :length])


def test_a_position_depends_on_all_items_up_to_its_own() -> None:
    model = drawn_model(layers=1)
    states = model(ITEMS)
    for changed in range(6):
        other = ITEMS.clone()
        other[0, changed] = 7
        moved = (model(other) - states).abs().amax(-1)[0] > 1e-9
        assert moved.tolist() == [position >= changed for position in range(6)]


def test_order_matters() -> None:
    model = drawn_model()
    swapped = ITEMS[:, [1, 0, 2, 3, 4, 5]]
    assert float((model(swapped) - model(ITEMS))[:, -1].detach().abs().max()) > 1e-3


def test_heads_agree_with_one_attention_a_head() -> None:
    """Two heads of width 4: each is an attention of its own over its own share of the columns."""
    model = drawn_model(layers=1)
    block = model.layers[0]
    x = torch.randn(1, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    q, k, v = block.qkv(x[0]).split(8, dim=-1)  # type: ignore[operator]
    mixed = torch.zeros(5, 8, dtype=torch.float64)
    for columns in (slice(0, 4), slice(4, 8)):
        for t in range(5):
            weights = (k[: t + 1, columns] @ q[t, columns] / math.sqrt(4)).softmax(0)
            mixed[t, columns] = weights @ v[: t + 1, columns]
    hidden = torch.ones(5, 5, dtype=torch.bool).triu(1)
    torch.testing.assert_close(block.attend(x, hidden)[0], block.out(mixed))  # type: ignore[operator]


def test_scores_have_a_column_for_every_item() -> None:
    model = drawn_model()
    states = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = model.scores(states)
    assert got.shape == (3, N_ITEMS)
    assert float(got[1, 4].detach()) == pytest.approx(float(states[1] @ model.item_embedding.weight[5].detach()))


def slow_loss(model: SASRec, sequence: list[int], negatives: list[list[int]], *, whole: bool) -> float:
    """-log sigmoid(positive) and the mean of -log sigmoid(-negative), position by position, in plain Python."""
    vectors = model.item_embedding.weight.tolist()
    states = model(torch.tensor([sequence[:-1]]))[0].tolist()

    def score(position: int, item: int) -> float:
        return float(sum(a * b for a, b in zip(states[position], vectors[item], strict=True)))

    losses = []
    for position in range(len(sequence) - 1):
        target = position + 1
        loss = -math.log(1 / (1 + math.exp(-score(position, sequence[target]))))
        others = [-math.log(1 - 1 / (1 + math.exp(-score(position, item)))) for item in negatives[target]]
        losses.append(loss + sum(others) / len(others))
    return sum(losses) / len(losses) if whole else losses[-1]


@settings(deadline=None, max_examples=25, derandomize=True)
@given(sequences=SEQUENCES, whole=st.booleans())
def test_losses_match_plain_python(sequences: list[list[int]], whole: bool) -> None:
    model, units = drawn_model(), make_units(sequences, whole=whole)
    negatives = draw_negatives(units, n_items=N_ITEMS, per_position=3, seed=1)
    made = batch(units, negatives, torch.arange(len(units)))
    expected = [
        slow_loss(model, sequence, negatives[start : start + len(sequence)].tolist(), whole=whole)
        for sequence, start in zip(sequences, units.offsets.tolist(), strict=False)
    ]
    torch.testing.assert_close(
        unit_losses(model, made).detach(), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-9
    )


def trained_targets(*, whole: bool) -> set[int]:
    """Items of the unit whose embedding has a gradient, in a model where only targets can have one."""
    model = drawn_model(layers=0)
    units = make_units([[1, 2, 3, 4]], whole=whole)
    made = batch(units, torch.full((4, 1), 9), torch.tensor([0]))
    states = model(made["items"]).detach()
    model.forward = lambda _: states  # type: ignore[method-assign, assignment]
    unit_losses(model, made).sum().backward()
    gradient = model.item_embedding.weight.grad
    assert gradient is not None
    return set(gradient.abs().sum(1).nonzero().flatten().tolist()) - {9}


def test_whole_units_train_on_every_position_the_target_included() -> None:
    assert trained_targets(whole=True) == {2, 3, 4}
    assert trained_targets(whole=False) == {4}


def test_per_sample_losses_are_without_dropout_and_use_the_given_parameters() -> None:
    model = drawn_model()
    units = make_units([[1, 2, 3], [4, 5, 6, 7]], whole=True)
    made = batch(units, draw_negatives(units, n_items=N_ITEMS, per_position=2, seed=0), torch.arange(2))
    expected = unit_losses(model, made).detach()
    loss = per_sample_loss(model.train())
    weight = model.get_parameter("layers.1.out.weight").detach()
    torch.testing.assert_close(loss({}, made), expected)
    torch.testing.assert_close(loss({"layers.1.out.weight": weight}, made), expected)
    assert not torch.allclose(loss({"layers.1.out.weight": 2 * weight}, made), expected)


def test_last_block_is_spelt_out() -> None:
    assert drawn_model(layers=2).parameter_globs(["last-block", "norm.*"]) == ["layers.1.*", "norm.*"]


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="must divide"):
        SASRec(5, dim=8, heads=3)
    with pytest.raises(ValueError, match="longer than max_length"):
        SASRec(5, dim=8, max_length=3)(torch.ones(1, 4, dtype=torch.int64))
