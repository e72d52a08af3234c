"""Each loss of each kind, position by position in plain Python."""

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dealrec.surrogate import LossName, Negatives, Surrogate, make_units, per_sample_loss, unit_losses
from dealrec.surrogate.losses import unit_errors
from dealrec.surrogate.units import batch
from tests.surrogate.conftest import (
    LOSSES,
    MAX_LENGTH,
    N_ITEMS,
    batches_of,
    drawn,
    drawn_for,
    every_kind,
    every_loss,
    some_units,
)

SEQUENCES = st.lists(st.lists(st.integers(1, N_ITEMS), min_size=2, max_size=MAX_LENGTH), min_size=1, max_size=4)


def position_loss(loss: LossName, scores: list[float], target: int, negatives: list[int]) -> float:
    """scores: of the items from 1."""

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    if loss == "bce":
        others = [-math.log(1 - sigmoid(scores[item - 1])) for item in negatives]
        return -math.log(sigmoid(scores[target - 1])) + sum(others) / len(others)
    rivals = [item for item in negatives if item != target]  # a user who holds nearly everything may draw the target
    candidates = [target, *rivals] if loss == "sampled-softmax" else range(1, len(scores) + 1)
    return -math.log(math.exp(scores[target - 1]) / sum(math.exp(scores[item - 1]) for item in candidates))


def position_error(loss: LossName, scores: list[float], target: int, negatives: list[int]) -> float:
    """The norm of prediction less target; scores: of the items from 1."""
    if loss == "bce":
        predictions = [1 / (1 + math.exp(-scores[item - 1])) for item in (target, *negatives)]
    else:
        rivals = [item for item in negatives if item != target]
        others = [item for item in range(1, len(scores) + 1) if item != target]
        candidates = [target, *(rivals if loss == "sampled-softmax" else others)]
        total = sum(math.exp(scores[item - 1]) for item in candidates)
        predictions = [math.exp(scores[item - 1]) / total for item in candidates]
    return math.sqrt((predictions[0] - 1) ** 2 + sum(p**2 for p in predictions[1:]))


def slow_loss(
    model: Surrogate,
    sequence: list[int],
    negatives: list[list[int]],
    hidden: list[bool],
    *,
    loss: LossName,
    measure: Callable[[LossName, list[float], int, list[int]], float] = position_loss,
) -> float:
    """The mean over the items at places `hidden`: filled in by a cloze, predicted from what precedes by the others."""
    given = sequence
    if model.hidden_item is not None:
        given = [model.hidden_item if hide else item for item, hide in zip(sequence, hidden, strict=True)]
    states = model(torch.tensor([given]))[0].tolist()
    vectors = model.item_vectors().tolist()[1 : N_ITEMS + 1]
    losses = []
    for place in [place for place, hide in enumerate(hidden) if hide]:
        state = states[place if model.cloze else place - 1]
        scores = [sum(a * b for a, b in zip(state, vector, strict=True)) for vector in vectors]
        losses.append(measure(loss, scores, sequence[place], negatives[place]))
    return sum(losses) / len(losses)


@every_kind
@every_loss
@settings(deadline=None, max_examples=10, derandomize=True)
@given(sequences=SEQUENCES, whole=st.booleans(), per_position=st.integers(1, 3), share=st.booleans())
@torch.no_grad()
def test_losses_and_errors_match_plain_python(
    kind: str, loss: LossName, sequences: list[list[int]], whole: bool, per_position: int, share: bool
) -> None:
    model, units = drawn(kind), make_units(sequences, whole=whole)
    order = [torch.arange(len(units))]
    batches = batches_of(model, units, per_position=per_position, share=share, order=order)
    negatives = drawn_for(units, batches.negatives)
    expected, errors = [], []
    for sequence, start in zip(sequences, units.offsets.tolist(), strict=False):
        places = slice(start, start + len(sequence))
        hidden = [place == len(sequence) - 1 or (whole and place > 0) for place in range(len(sequence))]
        if batches.cloze is not None:
            hidden = batches.cloze.hidden[places].tolist()
        rest = (model, sequence, negatives[places].tolist(), hidden)
        expected.append(slow_loss(*rest, loss=loss))
        errors.append(slow_loss(*rest, loss=loss, measure=position_error))
    got = unit_losses(model, batches[0], loss=loss)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-9)
    got = unit_errors(model, batches[0], loss=loss)
    torch.testing.assert_close(got, torch.tensor(errors, dtype=torch.float64), rtol=1e-6, atol=1e-9)


def test_every_loss_is_tested() -> None:
    assert get_args(LossName) == LOSSES


@pytest.mark.parametrize("loss", ["bce", "sampled-softmax"])
@torch.no_grad()
def test_negatives_of_positions_that_do_not_count_and_of_padding_count_nothing(loss: LossName) -> None:
    model, units = drawn("sasrec"), make_units([[1, 2, 3, 4], [5, 6]], whole=False)
    made = batch(units, Negatives(N_ITEMS, 1, 0), torch.arange(2))
    other = {**made, "negatives": torch.where(made["weights"].unsqueeze(2) > 0, made["negatives"], 8)}
    assert torch.equal(unit_losses(model, made, loss=loss), unit_losses(model, other, loss=loss))
    assert not torch.equal(made["negatives"], other["negatives"])


@pytest.mark.parametrize("kind", ["sasrec", "bert4rec"])
def test_whatever_a_model_has_at_padding_reaches_no_gradient(kind: str) -> None:
    model = drawn(kind)
    made = batches_of(model, make_units([[1, 2, 3, 4], [5, 6]], whole=True), share=True)[0]
    unit_losses(model, made).sum().backward()
    expected = [parameter.grad for parameter in model.parameters()]
    forward = model.forward
    model.forward = lambda items: forward(items).masked_fill((items == 0).unsqueeze(2), float("nan"))  # type: ignore[method-assign]
    model.zero_grad()
    unit_losses(model, made).sum().backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert torch.equal(parameter.grad, gradient)  # type: ignore[arg-type]


@torch.no_grad()
def test_softmax_needs_no_negatives_and_never_counts_padding_or_the_hidden_item() -> None:
    """Rows 0 and n_items + 1 of a cloze's vectors are no items: the loss must not see them."""
    model = drawn("bert4rec")
    made = batches_of(model, some_units(whole=True))[0]
    before = unit_losses(model, made, loss="softmax")
    vectors = model.item_vectors().clone()
    vectors[[0, N_ITEMS + 1]] = 1e3
    model.item_vectors = lambda: vectors  # type: ignore[method-assign]
    other = {**made, "negatives": torch.full_like(made["negatives"], 1)}
    assert torch.equal(unit_losses(model, other, loss="softmax"), before)


@every_kind
@every_loss
def test_per_sample_losses_are_without_dropout_and_use_the_given_parameters(kind: str, loss: LossName) -> None:
    model = drawn(kind)
    made = batches_of(model, some_units(whole=True))[0]
    expected = unit_losses(model, made, loss=loss).detach()
    found = per_sample_loss(model.train(), loss=loss)
    torch.testing.assert_close(found({}, made), expected)
    for name, value in model.named_parameters():
        # Not alike in all places: what is added to all keys or all scores alike, a softmax does not see.
        changed = {name: value.detach() + torch.linspace(0, 1, value.numel(), dtype=value.dtype).view_as(value)}
        assert not torch.allclose(found(changed, made), expected), name
