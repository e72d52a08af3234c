"""Ranks against a slow twin, and what training keeps, repeats and leaves alone."""

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dealrec.errors import NonFinite
from dealrec.surrogate import Epoch, LossName, SASRec, Surrogate, Units, make_units, mean_ndcg, target_ranks, train
from tests.surrogate.conftest import drawn, every_kind, made

N_ITEMS = 12
SEQUENCES = st.lists(st.lists(st.integers(1, N_ITEMS), min_size=2, max_size=7), min_size=1, max_size=8)


def drawn_model(*, seed: int = 0, n_items: int = N_ITEMS, dim: int = 16) -> SASRec:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SASRec(n_items, dim=dim, layers=1, heads=2, max_length=8, dropout=0.1)


def steps_upwards(count: int, *, seed: int) -> Units:
    """Sequences in which item i is followed by item i + 1, and the last item by the first."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(0, N_ITEMS, (count,), generator=generator).tolist()
    lengths = torch.randint(2, 7, (count,), generator=generator).tolist()
    return make_units(
        [[(start + i) % N_ITEMS + 1 for i in range(length)] for start, length in zip(starts, lengths, strict=True)],
        whole=True,
    )


def run(
    model: Surrogate,
    units: Units,
    valid: Units | None,
    *,
    epochs: int = 3,
    patience: int = 3,
    rate: float = 1e-2,
    loss: LossName = "bce",
) -> list[Epoch]:
    return train(
        model,
        units,
        valid,
        learning_rate=rate,
        batch_size=32,
        negatives=2,
        max_epochs=epochs,
        patience=patience,
        seed=4,
        loss=loss,
    )


def slow_rank(model: Surrogate, sequence: list[int]) -> float:
    *history, target = sequence
    ends = [] if model.hidden_item is None else [model.hidden_item]
    state, vectors = model(torch.tensor([[*history, *ends]]))[0, -1], model.item_vectors()
    scores = {item: float(state @ vectors[item]) for item in range(1, N_ITEMS + 1)}
    rivals = [item for item in scores if item not in history and item != target]
    ahead = sum(scores[item] > scores[target] for item in rivals)
    tied = sum(scores[item] == scores[target] for item in rivals)
    return 1 + ahead + tied / 2


@every_kind
@settings(deadline=None, max_examples=15, derandomize=True)
@given(sequences=SEQUENCES, coarse=st.booleans(), size=st.integers(1, 9))
@torch.no_grad()
def test_ranks_match_a_slow_twin(kind: str, sequences: list[list[int]], coarse: bool, size: int) -> None:
    model = drawn(kind, dim=2, n_items=N_ITEMS)
    if coarse:  # equal vectors tie, exactly where a score is one product
        for name, value in model.named_parameters():
            if name.startswith("item_"):
                value[1 : N_ITEMS + 1] = value[1:4].repeat(4, 1)
                value[:, 0 if value.shape[1] == 1 else 1 :] = 0
    got = target_ranks(model, make_units(sequences, whole=True), batch_size=size)
    assert got.tolist() == [slow_rank(model, sequence) for sequence in sequences]


@torch.no_grad()
def test_a_constant_score_ranks_in_the_middle_of_the_unseen() -> None:
    model = drawn_model()
    model.item_embedding.weight.zero_()
    ranks = target_ranks(model, make_units([[1, 2, 3], [5, 6], [7, 7]], whole=True))
    # Rivals: 12 less the history and the target. A target that is in the history is ranked all the same.
    assert ranks.tolist() == [1 + 9 / 2, 1 + 10 / 2, 1 + 11 / 2]


@torch.no_grad()
def test_ndcg_by_hand() -> None:
    model = drawn_model()
    ranks = iter([torch.tensor([1.0, 3.0, 11.0, 10.0], dtype=torch.float64)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dealrec.surrogate.training.target_ranks", lambda *_: next(ranks))
        got = mean_ndcg(model, make_units([[1, 2]] * 4, whole=True), k=10)
    assert got == pytest.approx(1 / 4 * (1 / math.log2(2) + 1 / math.log2(4) + 0 + 1 / math.log2(11)))


@torch.no_grad()
def test_a_model_with_nan_has_no_ranks() -> None:
    model = drawn_model()
    model.norm.weight.fill_(torch.nan)
    with pytest.raises(NonFinite, match="surrogate"):
        target_ranks(model, make_units([[1, 2, 3]], whole=True))


@pytest.mark.slow
def test_a_learnable_pattern_is_learnt() -> None:
    model, valid = drawn_model(), steps_upwards(60, seed=1)
    before = mean_ndcg(model, valid, k=10)
    history = run(model, steps_upwards(300, seed=0), valid, epochs=25, patience=25)
    assert before < 0.7
    assert mean_ndcg(model, valid, k=10) > 0.9
    assert history[-1].train_loss < 0.5 * history[0].train_loss


@pytest.mark.parametrize(
    ("kind", "loss"),
    [("gru4rec", "bce"), ("bert4rec", "bce"), ("mf", "bce"), ("bert4rec", "softmax"), ("gru4rec", "sampled-softmax")],
)
@pytest.mark.slow
def test_every_kind_learns_it(kind: str, loss: LossName) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = made(kind, n_items=N_ITEMS)
    valid = steps_upwards(60, seed=1)
    before = mean_ndcg(model, valid, k=10)
    run(model, steps_upwards(300, seed=0), valid, epochs=25, patience=25, rate=0.02, loss=loss)
    assert before < 0.7
    assert mean_ndcg(model, valid, k=10) > 0.9


def test_the_best_epoch_is_kept_and_training_stops_early() -> None:
    generator = torch.Generator().manual_seed(1)
    unlearnable = make_units(torch.randint(1, N_ITEMS + 1, (15, 4), generator=generator).tolist(), whole=True)
    model, valid = drawn_model(), unlearnable
    history = run(model, steps_upwards(150, seed=0), valid, epochs=60, patience=2, rate=0.05)
    ndcgs = [epoch.valid_ndcg for epoch in history if epoch.valid_ndcg is not None]
    assert [epoch.epoch for epoch in history] == list(range(1, len(history) + 1))
    assert len(history) == len(ndcgs) == ndcgs.index(max(ndcgs)) + 1 + 2
    assert len(history) < 60
    assert mean_ndcg(model, valid, k=10) == max(ndcgs) > ndcgs[-1]


def test_a_worsening_model_is_left_at_its_best(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Tensor]] = []
    ranks = iter([2.0, 1.0, 3.0, 1.0, 5.0])  # of all targets; NDCG@10 is 1 / log2(1 + rank)

    def scripted(model: SASRec, units: Units) -> Tensor:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return torch.full((len(units),), next(ranks), dtype=torch.float64)

    monkeypatch.setattr("dealrec.surrogate.training.target_ranks", scripted)
    model = drawn_model()
    history = run(model, steps_upwards(40, seed=0), steps_upwards(5, seed=1), epochs=9, patience=3)
    expected = [1 / math.log2(3), 1, 1 / 2, 1, 1 / math.log2(6)]  # 3 epochs without a better one than the second
    assert [epoch.valid_ndcg for epoch in history] == pytest.approx(expected)
    assert all(torch.equal(value, seen[1][name]) for name, value in model.state_dict().items())


def test_while_no_target_is_among_the_first_ten_the_reciprocal_rank_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = iter([90.0, 50.0, 20.0, 30.0, 40.0])
    monkeypatch.setattr(
        "dealrec.surrogate.training.target_ranks",
        lambda _model, units: torch.full((len(units),), next(ranks), dtype=torch.float64),
    )
    history = run(drawn_model(), steps_upwards(40, seed=0), steps_upwards(5, seed=1), epochs=9, patience=2)
    assert [epoch.valid_ndcg for epoch in history] == [0.0] * 5  # the third is kept


def test_without_validation_all_epochs_run_and_the_last_is_kept() -> None:
    long, short = drawn_model(), drawn_model()
    history = run(long, steps_upwards(40, seed=0), None, epochs=4, patience=1)
    run(short, steps_upwards(40, seed=0), None, epochs=3, patience=1)
    assert [epoch.valid_ndcg for epoch in history] == [None] * 4
    assert not torch.equal(long.item_embedding.weight, short.item_embedding.weight)


def test_the_seed_decides_the_weights() -> None:
    models = [drawn_model(), drawn_model(), drawn_model()]
    histories = []
    for model, seed in zip(models, (4, 4, 5), strict=True):
        torch.rand(seed)  # whatever the global state
        histories.append(
            train(
                model,
                steps_upwards(50, seed=0),
                steps_upwards(9, seed=1),
                learning_rate=1e-2,
                batch_size=16,
                negatives=2,
                max_epochs=2,
                patience=2,
                seed=seed,
            )
        )
    assert histories[0] == histories[1]
    pairs = zip(models[0].parameters(), models[1].parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert not torch.equal(models[0].item_embedding.weight, models[2].item_embedding.weight)


def test_training_leaves_the_global_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    run(drawn_model(), steps_upwards(20, seed=0), None, epochs=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_training_loss_is_the_mean_over_units() -> None:
    """At a learning rate of 0, one epoch's loss over batches of unequal size is that over all units at once."""
    losses = []
    for size in (7, 20):
        model = drawn_model().eval()
        model.dropout.p = 0.0
        for layer in model.layers:
            layer.dropout.p = 0.0  # type: ignore[union-attr]
        history = train(
            model,
            steps_upwards(20, seed=0),
            None,
            learning_rate=0.0,
            batch_size=size,
            negatives=2,
            max_epochs=1,
            patience=1,
            seed=0,
        )
        losses.append(history[0].train_loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [("bce", 2 * math.log(2)), ("sampled-softmax", math.log(1 + 2)), ("softmax", math.log(N_ITEMS))],
)
@pytest.mark.parametrize("kind", ["sasrec", "bert4rec"])
def test_where_all_scores_are_equal_the_loss_is_that_of_guessing(kind: str, loss: LossName, expected: float) -> None:
    model = made(kind, n_items=N_ITEMS)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.startswith("item_"):
                value.zero_()
    history = run(model, steps_upwards(20, seed=0), None, epochs=1, rate=0.0, loss=loss)
    assert history[0].train_loss == pytest.approx(expected)


def test_a_diverging_loss_is_an_error() -> None:
    with pytest.raises(NonFinite, match="diverged in epoch"):
        run(drawn_model(), steps_upwards(40, seed=0), None, epochs=3, rate=1e30)


def test_epochs_can_be_watched() -> None:
    watched: list[int] = []

    def watch(epochs: object, /) -> Iterator[int]:
        assert isinstance(epochs, range)
        for epoch in epochs:
            watched.append(epoch)
            yield epoch

    train(
        drawn_model(),
        steps_upwards(10, seed=0),
        None,
        learning_rate=1e-2,
        batch_size=5,
        negatives=1,
        max_epochs=3,
        patience=1,
        seed=0,
        watch=watch,
    )
    assert watched == [1, 2, 3]


def test_no_units_are_an_error() -> None:
    model, nothing = drawn_model(), make_units([], whole=True)
    with pytest.raises(ValueError, match="no unit to train on"):
        run(model, nothing, None)
    with pytest.raises(ValueError, match="no unit to rank"):
        mean_ndcg(model, nothing, k=10)
