"""Positions, batches, the loss, learning, resuming, and what is written to the disk."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dealrec.effort import gradient_norms
from dealrec.errors import ModelError, NonFinite
from dealrec.recommenders.tiger import (
    SemanticIds,
    encode,
    last_positions,
    new_model,
    positions,
    rank,
    train,
)
from dealrec.recommenders.tiger.files import load, load_checkpoint, save, save_checkpoint
from dealrec.recommenders.tiger.semantic_ids import PAD
from dealrec.recommenders.tiger.training import Checkpoint, Epoch, _rates, batch, level_losses
from dealrec.sequences import collate, sequence_losses
from tests.recommenders.tiger.conftest import SIZES

CPU = torch.device("cpu")
SEQUENCES = [[0, 1, 2, 3], [4], [5, 6], [7, 8, 9, 10, 11]]
SEQUENCE = st.lists(st.integers(0, 19), min_size=1, max_size=6)


@settings(deadline=None)
@given(sequences=st.lists(SEQUENCE, min_size=1, max_size=5), max_items=st.integers(1, 4))
def test_a_batch_is_what_encode_and_collate_make_of_each_prefix(
    ids: SemanticIds, sequences: list[list[int]], max_items: int
) -> None:
    prefixes = [(s[:end], s[end]) for s in sequences for end in range(1, len(s))]
    examples = positions(sequences, max_items=max_items)
    assert list(zip(examples.histories(), examples.target_rows.tolist(), strict=True)) == prefixes
    if prefixes:
        made = batch(examples, ids, torch.arange(len(examples)), device=CPU)
        slow = collate([encode(ids, *prefix, max_items=max_items) for prefix in prefixes], pad_id=PAD)
        assert all(torch.equal(made[name], slow[name]) for name in ("input_ids", "attention_mask", "labels"))


def test_the_last_position_alone_for_testing() -> None:
    examples = last_positions(SEQUENCES, max_items=2)
    assert examples.histories() == [[0, 1, 2], [], [5], [7, 8, 9, 10]]
    assert examples.target_rows.tolist() == [3, 4, 6, 11]
    assert examples.lengths.tolist() == [2, 0, 1, 2]
    with pytest.raises(ValueError, match="target"):
        last_positions([[1], []])


def test_the_training_loss_is_the_mean_of_the_sample_losses_that_effort_takes(model: Any, ids: SemanticIds) -> None:
    examples = positions(SEQUENCES)
    made = batch(examples, ids, torch.arange(len(examples)), device=CPU)
    with torch.no_grad():
        losses, loss = sequence_losses(model, made), model(**made).loss
    torch.testing.assert_close(losses.mean(), loss)
    levels = level_losses(model, ids, examples, batch_size=3)
    assert sum(levels) / len(levels) == pytest.approx(float(loss), rel=1e-5)


def test_effort_can_be_measured(model: Any, ids: SemanticIds) -> None:
    made = batch(positions(SEQUENCES), ids, torch.arange(3), device=CPU)
    norms = gradient_norms(model, [made])
    for row, norm in enumerate(norms):
        model.zero_grad()
        sequence_losses(model, {name: value[row : row + 1] for name, value in made.items()}).sum().backward()
        by_hand = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None))
        assert float(norm) == pytest.approx(by_hand, rel=1e-4)
    model.zero_grad()


def trained(ids: SemanticIds, **options: Any) -> tuple[Any, list[Epoch]]:
    model = new_model(ids.vocab_size, **SIZES, dropout=0.1, seed=1)
    settings: dict[str, Any] = {
        "learning_rate": 3e-3,
        "warmup_steps": 3,
        "batch_size": 4,
        "max_epochs": 4,
        "seed": 2,
    }
    walks = [[(start + i) % 20 for i in range(6)] for start in range(0, 20, 3)]
    valid = last_positions(walks[:4])
    return model, train(model, ids, positions(walks), options.pop("valid", valid), **settings | options)


@pytest.mark.slow
def test_a_handful_of_users_is_learnt_by_heart(ids: SemanticIds) -> None:
    model = new_model(ids.vocab_size, **SIZES, dropout=0.0, seed=0)
    examples = positions([[3, 1, 4, 15], [9, 2, 6], [5, 3, 8, 9]])
    epochs = train(model, ids, examples, None, learning_rate=2e-2, warmup_steps=30, max_epochs=70, batch_size=8)
    assert epochs[-1].train_loss < 0.05
    assert len(epochs) == 70
    found = rank(model, ids, examples, k=1, beams=5, exclude_seen=False)
    assert [row for (row,) in found] == examples.target_rows.tolist()


def test_what_was_seen_before_the_part_that_is_read_is_left_out_too(model: Any, ids: SemanticIds) -> None:
    examples = last_positions([[*range(18), 19]], max_items=2)
    (found,) = rank(model, ids, examples, k=20, beams=20, exclude_seen=True)
    assert sorted(found) == [18, 19]
    assert len(rank(model, ids, examples, k=20, beams=20, exclude_seen=False)[0]) == 20


def test_ranking_is_in_the_order_of_the_samples(model: Any, ids: SemanticIds) -> None:
    examples = last_positions(SEQUENCES)
    whole = rank(model, ids, examples, k=4, beams=6, exclude_seen=True)
    assert rank(model, ids, examples, k=4, beams=6, exclude_seen=True, batch_size=1) == whole


def test_dropout_is_on_in_training_and_off_afterwards(ids: SemanticIds) -> None:
    model, modes = new_model(ids.vocab_size, **SIZES), []

    def watch(order: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        for index in order:
            modes.append(model.training)
            yield index

    train(model, ids, positions(SEQUENCES), last_positions(SEQUENCES), max_epochs=2, watch=watch)
    assert modes == [True, True]
    assert not model.training


@pytest.mark.slow
def test_the_best_epoch_is_kept_and_training_ends_when_nothing_gets_better(ids: SemanticIds) -> None:
    model, epochs = trained(ids, max_epochs=40, patience=2, learning_rate=0.1)
    best = max(epochs, key=Epoch.quality)
    assert len(epochs) == best.epoch + 2
    walks = [[(start + i) % 20 for i in range(6)] for start in range(0, 20, 3)]
    assert level_losses(model, ids, last_positions(walks[:4])) == pytest.approx(best.valid_levels)


@pytest.mark.slow
def test_resumed_training_ends_like_an_uninterrupted_one(ids: SemanticIds, tmp_path: Path) -> None:
    whole, epochs = trained(ids)
    kept: list[Checkpoint] = []
    trained(ids, max_epochs=2, keep=kept.append)
    save_checkpoint(tmp_path / "training.safetensors", kept[-1])
    start = load_checkpoint(tmp_path / "training.safetensors")
    assert start.epochs == epochs[:2]
    resumed, again = trained(ids, start=start)
    assert again == epochs
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def test_the_learning_rate_rises_and_falls_by_steps_not_by_epochs() -> None:
    whole = list(islice(_rates(1.0, 4, start=1), 16))
    assert whole[:5] == [1 / 4, 2 / 4, 3 / 4, 1.0, math.sqrt(4 / 5)]
    assert whole[-1] == 1 / 2
    assert list(islice(_rates(1.0, 4, start=7), 10)) == whole[6:]


@pytest.mark.slow
def test_a_finished_training_is_not_gone_on_with(ids: SemanticIds) -> None:
    kept: list[Checkpoint] = []
    whole, epochs = trained(ids, keep=kept.append)
    resumed, again = trained(ids, start=kept[-1], keep=lambda _: pytest.fail("trained on"))
    assert again == epochs
    assert torch.equal(whole.shared.weight, resumed.shared.weight)


@pytest.mark.slow
def test_training_follows_from_the_seed_and_leaves_the_generator(ids: SemanticIds) -> None:
    state = torch.get_rng_state()
    one = trained(ids, max_epochs=1)[1]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert trained(ids, max_epochs=1)[1] == one
    assert trained(ids, max_epochs=1, seed=3)[1] != one


def test_a_diverging_loss_is_an_error(ids: SemanticIds) -> None:
    with pytest.raises(NonFinite, match="diverged"):
        trained(ids, learning_rate=1e30, valid=None)


def test_nothing_to_train_on_is_refused(model: Any, ids: SemanticIds) -> None:
    with pytest.raises(ValueError, match="no sample"):
        train(model, ids, positions([[1]]), None)


@pytest.mark.parametrize("items", [list(range(20)), [f"i{row}" for row in range(20)]])
def test_saved_and_loaded_it_answers_alike(
    model: Any, ids: SemanticIds, items: list[int | str], tmp_path: Path
) -> None:
    save(tmp_path / "tiger", model, ids, items)
    loaded, same, same_items = load(tmp_path / "tiger")
    assert torch.equal(same.codes, ids.codes)
    assert (same.sizes, same_items) == (ids.sizes, items)
    made = batch(positions(SEQUENCES), ids, torch.arange(3), device=CPU)
    with torch.no_grad():
        assert torch.equal(loaded(**made).logits, model(**made).logits)
    names = {path.suffix for path in (tmp_path / "tiger").iterdir()}
    assert names == {".json", ".parquet", ".safetensors"}


def test_ids_of_another_model_are_refused(model: Any, ids: SemanticIds, tmp_path: Path) -> None:
    save(tmp_path, model, dataclasses.replace(ids, sizes=(9, 9, 9, 9)), list(range(20)))
    with pytest.raises(ModelError, match="13 tokens, the ids use 38"):
        load(tmp_path)
    (tmp_path / "semantic_ids.parquet").write_bytes(b"PAR1")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(tmp_path)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "training.safetensors"
    save_checkpoint(path, Checkpoint([], {"model.a": torch.ones(50)}))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ModelError, match="Delete it"):
        load_checkpoint(path)


def test_the_best_epoch_has_the_lowest_validation_loss_and_without_one_it_is_the_last() -> None:
    learnt = Epoch(2, train_loss=2.0, valid_levels=(3.9, 2.9))
    overfitted = Epoch(3, train_loss=1.0, valid_levels=(4.2, 3.1))
    assert max([Epoch(1, train_loss=4.8, valid_levels=(5.6, 5.8)), learnt, overfitted], key=Epoch.quality) is learnt
    alone = [Epoch(number, train_loss=1.0, valid_levels=()) for number in (1, 2)]
    assert max(alone, key=Epoch.quality).epoch == 2
