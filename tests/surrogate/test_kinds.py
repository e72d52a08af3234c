"""What each kind of surrogate sees: padding, order, causality, hidden items."""

import fnmatch
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dealrec.surrogate import MF, Cloze, GRU4Rec, Negatives, Surrogate, make_units, unit_losses
from dealrec.surrogate.gru4rec import GRU
from dealrec.surrogate.units import batch
from tests.surrogate.conftest import MAX_LENGTH, N_ITEMS, drawn, every_causal_kind, every_kind, padded

HISTORIES = st.lists(st.lists(st.integers(1, N_ITEMS), min_size=1, max_size=MAX_LENGTH), min_size=1, max_size=5)
ITEMS = torch.tensor([[3, 1, 4, 1, 5, 9]])
T = ITEMS.shape[1]


def moved(model: Surrogate, items: Tensor, other: Tensor) -> list[bool]:
    """Which positions' states differ."""
    difference: Tensor = model(other) - model(items)
    return [bool(change > 1e-9) for change in difference.abs().amax(-1)[0]]


@every_kind
@settings(deadline=None, max_examples=15, derandomize=True)
@given(histories=HISTORIES)
@torch.no_grad()
def test_padding_changes_no_state_of_a_real_position(kind: str, histories: list[list[int]]) -> None:
    model = drawn(kind, layers=2)
    items, lengths = padded(histories, extra=MAX_LENGTH - max(map(len, histories)))
    states = model(items)
    for row, length, history in zip(states, lengths.tolist(), histories, strict=True):
        torch.testing.assert_close(row[:length], model(torch.tensor([history]))[0])


@every_causal_kind
@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_prefix_has_the_states_that_it_has_within_its_sequence(kind: str, length: int) -> None:
    model = drawn(kind, layers=2)
    torch.testing.assert_close(model(ITEMS[:, :length]), model(ITEMS)[:, :length])


@every_kind
@pytest.mark.parametrize("changed", range(T))
def test_a_position_sees_the_items_up_to_its_own_and_in_bert4rec_all(kind: str, changed: int) -> None:
    other = ITEMS.clone()
    other[0, changed] = 7
    expected = [kind == "bert4rec" or position >= changed for position in range(T)]
    assert moved(drawn(kind), ITEMS, other) == expected


@every_kind
@torch.no_grad()
def test_order_matters_but_to_mf(kind: str) -> None:
    swapped = ITEMS[:, [2, 0, 1, 3, 4, 5]]  # the order of the first three
    at_the_last = float((drawn(kind)(swapped) - drawn(kind)(ITEMS))[:, -1].abs().max())
    assert at_the_last < 1e-12 if kind == "mf" else at_the_last > 1e-3


@every_kind
@torch.no_grad()
def test_scores_have_a_column_for_every_item_and_none_else(kind: str) -> None:
    model = drawn(kind)
    states = model.next_states(*padded([[3, 1], [2], [5, 5, 5]]))
    vectors = model.item_vectors()
    assert len(vectors) == N_ITEMS + (2 if kind == "bert4rec" else 1)
    scores = model.scores(states)
    assert scores.shape == (3, N_ITEMS)
    for item in range(1, N_ITEMS + 1):
        torch.testing.assert_close(scores[:, item - 1], states @ vectors[item])


@every_kind
@settings(deadline=None, max_examples=25, derandomize=True)
@given(histories=HISTORIES)
@torch.no_grad()
def test_next_states_match_one_sequence_at_a_time(kind: str, histories: list[list[int]]) -> None:
    """A cloze appends the hidden item; beyond max_length the oldest item makes room for it."""
    model = drawn(kind)
    ends = [] if model.hidden_item is None else [model.hidden_item]
    expected = [model(torch.tensor([[*history, *ends][-MAX_LENGTH:]]))[0, -1] for history in histories]
    torch.testing.assert_close(model.next_states(*padded(histories)), torch.stack(expected))


@torch.no_grad()
def test_at_exactly_max_length_the_oldest_item_makes_room() -> None:
    model = drawn("bert4rec")
    full, shorter = [1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7]
    assert len(full) == MAX_LENGTH
    got = model.next_states(*padded([full, shorter]))
    hidden = N_ITEMS + 1
    torch.testing.assert_close(got[0], model(torch.tensor([[2, 3, 4, 5, 6, 7, 8, hidden]]))[0, -1])
    torch.testing.assert_close(got[1], model(torch.tensor([[1, 2, 3, 4, 5, 6, 7, hidden]]))[0, -1])
    forgotten = model.next_states(*padded([[9, *full[1:]], shorter]))
    torch.testing.assert_close(forgotten[0], got[0])


@torch.no_grad()
def test_a_hidden_items_state_sees_later_items_but_not_what_was_hidden() -> None:
    model = drawn("bert4rec")
    units = make_units([[3, 1, 4, 2], [3, 7, 4, 2], [3, 7, 5, 2]], whole=True)
    hidden = torch.tensor([0, 1, 0, 1], dtype=torch.bool).repeat(3)  # the second item and the target
    made = batch(units, Negatives(N_ITEMS, 1, 0), torch.arange(3), cloze=Cloze(hidden, N_ITEMS + 1))
    states, losses = model(made["items"]), unit_losses(model, made)
    torch.testing.assert_close(states[0], states[1])  # differs in the hidden item alone
    assert abs(float(losses[0] - losses[1])) > 1e-3
    assert float((states[1] - states[2])[1].abs().max()) > 1e-3  # differs in the third, which is later


@every_kind
def test_a_sequence_beyond_max_length_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="longer than max_length"):
        drawn(kind)(torch.ones(1, MAX_LENGTH + 1, dtype=torch.int64))


@every_kind
def test_last_block_names_parameters_of_every_kind(kind: str) -> None:
    model = drawn(kind, layers=2)
    (glob,) = model.parameter_globs(["last-block"])
    assert glob == ("item_*" if kind == "mf" else "layers.1.*")
    assert fnmatch.filter([name for name, _ in model.named_parameters()], glob)


def torch_gru(layers: list[GRU], *, dim: int) -> torch.nn.GRU:
    """torch's own recurrence with the same weights."""
    reference = torch.nn.GRU(dim, dim, num_layers=len(layers), batch_first=True).double()
    with torch.no_grad():
        for number, layer in enumerate(layers):
            for ours, theirs in ((layer.from_input, "ih"), (layer.from_state, "hh")):
                getattr(reference, f"weight_{theirs}_l{number}").copy_(ours.weight)
                getattr(reference, f"bias_{theirs}_l{number}").copy_(ours.bias)
    return reference


def test_the_recurrence_and_its_gradient_are_those_of_torchs_gru() -> None:
    model = drawn("gru4rec")
    layer = model.layers[0]  # type: ignore[index]
    assert isinstance(layer, GRU)
    reference = torch_gru([layer], dim=4)
    generator = torch.Generator().manual_seed(1)
    x, seen = (torch.randn(3, 5, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    got, expected = layer(ours), reference(theirs)[0]
    torch.testing.assert_close(got, expected)
    (got * seen).sum().backward()
    (expected * seen).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    for name, theirs_name in (("from_input", "ih"), ("from_state", "hh")):
        for part in ("weight", "bias"):
            ours_grad = layer.get_parameter(f"{name}.{part}").grad
            torch.testing.assert_close(ours_grad, reference.get_parameter(f"{part}_{theirs_name}_l0").grad)


def test_gru4rec_is_embedding_gru_and_one_linear_layer() -> None:
    model = drawn("gru4rec", layers=2)
    assert isinstance(model, GRU4Rec)
    layers = [layer for layer in model.layers if isinstance(layer, GRU)]
    expected = model.out(torch_gru(layers, dim=4)(model.item_embedding(ITEMS))[0])
    torch.testing.assert_close(model(ITEMS), expected)


@torch.no_grad()
def test_mf_by_hand() -> None:
    model = MF(3, dim=2, dropout=0.5).eval()
    model.user_factors.weight.copy_(torch.tensor([[9.0, 9.0], [1.0, 2.0], [3.0, 5.0], [-1.0, 0.5]]))
    model.item_factors.weight.copy_(torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [2.0, -1.0]]))
    model.item_bias.weight.copy_(torch.tensor([[9.0], [0.1], [0.2], [0.3]]))
    states = model(torch.tensor([[2, 1, 3]]))
    two, three = math.sqrt(2), math.sqrt(3)
    by_hand = [[3.0, 5.0, 1.0], [4 / two, 7 / two, 1.0], [3 / three, 7.5 / three, 1.0]]
    torch.testing.assert_close(states, torch.tensor([by_hand]))
    scores = [4 / two + 0.1, 7 / two + 0.2, 2 * 4 / two - 7 / two + 0.3]
    assert model.scores(model.next_states(torch.tensor([[2, 1, 0]]), torch.tensor([2])))[0].tolist() == pytest.approx(
        scores
    )
