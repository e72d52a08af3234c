"""Units, their batches, and the negatives drawn for them."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dealrec.surrogate import Batches, Cloze, Negatives, Units, draw_cloze, make_units, plan, plan_by_positions
from dealrec.surrogate.units import batch
from tests.surrogate.conftest import Given, drawn_for

N_ITEMS = 20
SEQUENCES = st.lists(st.lists(st.integers(1, N_ITEMS), min_size=2, max_size=8), min_size=1, max_size=12)


def test_units_lie_end_to_end() -> None:
    units = make_units([[3, 1, 2], [5, 4]], whole=True)
    assert units.items.tolist() == [3, 1, 2, 5, 4]
    assert units.offsets.tolist() == [0, 3, 5]
    assert units.lengths.tolist() == [3, 2]
    assert len(units) == 2


def test_a_unit_needs_a_history_and_a_target() -> None:
    with pytest.raises(ValueError, match="at least two"):
        make_units([[1, 2], [3]], whole=True)


def test_no_units_have_no_batches() -> None:
    units = make_units([], whole=True)
    assert len(units) == 0
    assert plan(units, batch_size=4) == []
    assert plan(units, batch_size=4, generator=torch.Generator()) == []
    assert plan_by_positions(units, positions=4) == []
    assert drawn_for(units, Negatives(5, 2, 0)).shape == (0, 2)


@pytest.mark.slow
@settings(deadline=None, derandomize=True)
@given(sequences=SEQUENCES, positions=st.integers(1, 40))
def test_a_plan_by_positions_holds_each_unit_once_and_fills_its_batches(
    sequences: list[list[int]], positions: int
) -> None:
    units = make_units(sequences, whole=True)
    batches = plan_by_positions(units, positions=positions)
    assert sorted(torch.cat(batches).tolist()) == list(range(len(units)))
    lengths = [units.lengths[index].tolist() for index in batches]
    flat = [length for mine in lengths for length in mine]
    assert flat == sorted(flat, reverse=True)
    for mine, following in pairwise([*lengths, []]):
        assert max(mine) * len(mine) <= positions or len(mine) == 1
        assert not following or max(mine) * (len(mine) + 1) > positions


@pytest.mark.slow
@settings(deadline=None, derandomize=True)
@given(sequences=SEQUENCES, size=st.integers(1, 13), seed=st.none() | st.integers(0, 5))
def test_a_plan_holds_each_unit_once_alike_in_length(sequences: list[list[int]], size: int, seed: int | None) -> None:
    units = make_units(sequences, whole=True)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    batches = plan(units, batch_size=size, generator=generator)
    assert sorted(torch.cat(batches).tolist()) == list(range(len(sequences)))
    assert all(1 <= len(index) <= size for index in batches)
    spans = sorted((int(units.lengths[i].min()), int(units.lengths[i].max())) for i in batches)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_a_plan_repeats_itself_given_the_seed() -> None:
    units = make_units([[1, 2]] * 30, whole=True)

    def order(seed: int) -> list[int]:
        return torch.cat(plan(units, batch_size=4, generator=torch.Generator().manual_seed(seed))).tolist()

    assert order(1) == order(1) != order(2)
    assert torch.cat(plan(units, batch_size=4)).tolist() == list(range(30))


@pytest.mark.slow
@settings(deadline=None, derandomize=True)
@given(sequences=SEQUENCES, seed=st.integers(0, 100))
def test_negatives_are_items_that_the_unit_does_not_hold(sequences: list[list[int]], seed: int) -> None:
    units = make_units(sequences, whole=True)
    drawn = drawn_for(units, Negatives(N_ITEMS, 3, seed))
    assert drawn.shape == (len(units.items), 3)
    assert 1 <= int(drawn.min()) <= int(drawn.max()) <= N_ITEMS
    for sequence, start, end in zip(sequences, units.offsets.tolist(), units.offsets[1:].tolist(), strict=False):
        assert not set(sequence) & set(drawn[start:end].flatten().tolist())


def test_negatives_are_drawn_from_all_other_items_alike() -> None:
    units = make_units([[1, 2, 3]] * 1000, whole=True)
    counts = torch.bincount(drawn_for(units, Negatives(8, 2, 0)).flatten(), minlength=9)
    assert counts[:4].tolist() == [0, 0, 0, 0]
    assert bool((counts[4:] - 1200).abs().max() < 150)  # 6000 / 5, five deviations either side


def test_negatives_follow_from_the_seed_alone() -> None:
    units = make_units([[1, 2, 3], [4, 5], [6, 7, 8, 9]], whole=True)
    before = torch.random.get_rng_state()
    first = drawn_for(units, Negatives(N_ITEMS, 4, 3))
    assert torch.equal(first, drawn_for(units, Negatives(N_ITEMS, 4, 3)))
    assert not torch.equal(first, drawn_for(units, Negatives(N_ITEMS, 4, 4)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_user_who_holds_the_whole_catalogue_still_gets_negatives() -> None:
    drawn = drawn_for(make_units([[1, 2, 3]], whole=True), Negatives(3, 2, 0))
    assert 1 <= int(drawn.min()) <= int(drawn.max()) <= 3


@pytest.mark.slow
@settings(deadline=None, derandomize=True)
@given(
    sequences=SEQUENCES, seed=st.integers(0, 2**62), keep=st.sets(st.integers(0, 11), min_size=1), share=st.booleans()
)
def test_a_unit_s_negatives_are_its_own_whatever_the_batch_and_whoever_else_is_there(
    sequences: list[list[int]], seed: int, keep: set[int], share: bool
) -> None:
    units, negatives = make_units(sequences, whole=True), Negatives(N_ITEMS, 3, seed, share)
    everyone = drawn_for(units, negatives)
    kept = torch.tensor(sorted(place for place in keep if place < len(units)), dtype=torch.int64)
    fewer = units.take(kept)
    parts = [everyone[units.offsets[i] : units.offsets[i + 1]] for i in kept.tolist()]
    assert torch.equal(drawn_for(fewer, negatives), torch.cat([everyone[:0], *parts]))
    for number in range(len(fewer)):
        alone = batch(fewer, negatives, torch.tensor([number]))["negatives"][0]
        assert torch.equal(alone.expand(len(parts[number]) - 1, 3), parts[number][1:])  # the first item is no target


def test_a_large_seed_and_many_units_draw_each_position_anew() -> None:
    units = make_units([[1, 2]] * 500, whole=True)
    drawn = drawn_for(units, Negatives(10**6, 4, 2**63 - 1))
    assert len(drawn.flatten().unique()) > 3980  # of 4,000: about 8 meet by chance
    assert 0.48 < float(drawn.double().mean()) / 10**6 < 0.52


def made(units: Units, index: list[int], *, cloze: Cloze | None = None) -> dict[str, list[object]]:
    numbered = Given(torch.arange(100, 100 + len(units.items)), units)  # stands for negatives: 100 + place
    return {name: value.tolist() for name, value in batch(units, numbered, torch.tensor(index), cloze=cloze).items()}


def test_a_batch_of_whole_sequences_by_hand() -> None:
    got = made(make_units([[3, 1, 2], [5, 4]], whole=True), [1, 0])
    assert got["items"] == [[5, 0], [3, 1]]
    assert got["targets"] == [[4, 0], [1, 2]]
    assert got["negatives"] == [[[104], [0]], [[101], [102]]]  # of the target's place
    assert got["weights"] == [[1.0, 0.0], [0.5, 0.5]]


def test_a_batch_of_last_positions_by_hand() -> None:
    got = made(make_units([[3, 1, 2], [5, 4]], whole=False), [0, 1])
    assert got["items"] == [[3, 1], [5, 0]]
    assert got["weights"] == [[0.0, 1.0], [1.0, 0.0]]
    assert got["negatives"] == [[[0], [102]], [[104], [0]]]  # where nothing is asked nothing is drawn


def test_a_cloze_batch_by_hand() -> None:
    hidden = torch.tensor([True, False, True, False, True], dtype=torch.bool)
    got = made(make_units([[3, 1, 2], [5, 4]], whole=True), [1, 0], cloze=Cloze(hidden, 21))
    assert got["items"] == [[5, 21, 0], [21, 1, 21]]
    assert got["targets"] == [[5, 4, 0], [3, 1, 2]]  # of their own positions
    assert got["negatives"] == [[[0], [104], [0]], [[100], [0], [102]]]
    assert got["weights"] == [[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]]


def hidden_places(units: Units, *, share: float, seed: int = 0) -> list[int]:
    return draw_cloze(units, index=21, share=share, seed=seed).hidden.nonzero().flatten().tolist()


def test_a_cloze_always_hides_the_target_and_without_a_share_it_alone() -> None:
    sequences = [[1, 2, 3], [4, 5], [6, 7, 8, 9]]
    targets = [2, 4, 8]
    for seed in range(20):
        assert set(targets) <= set(hidden_places(make_units(sequences, whole=True), share=0.5, seed=seed))
    assert hidden_places(make_units(sequences, whole=True), share=0.0) == targets
    assert hidden_places(make_units(sequences, whole=False), share=0.9) == targets  # the last position alone counts
    assert hidden_places(make_units([], whole=True), share=0.5) == []


def test_a_cloze_hides_other_items_with_the_share_as_probability() -> None:
    units = make_units([[1, 2, 3, 4]] * 2_000, whole=True)
    hidden = draw_cloze(units, index=21, share=0.3, seed=0).hidden.view(2_000, 4).double().mean(0)
    assert float(hidden[3]) == 1.0
    assert bool(((hidden[:3] - 0.3).abs() < 0.05).all())  # five deviations: (0.3 * 0.7 / 2000) ** 0.5 = 0.01


def test_a_cloze_follows_from_the_seed_alone() -> None:
    units = make_units([[1, 2, 3, 4, 5]] * 20, whole=True)
    before = torch.random.get_rng_state()
    first = hidden_places(units, share=0.4, seed=3)
    torch.rand(7)
    assert first == hidden_places(units, share=0.4, seed=3)
    assert first != hidden_places(units, share=0.4, seed=4)
    torch.random.set_rng_state(before)
    hidden_places(units, share=0.4)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_cloze_batches_hide_the_same_items_however_they_are_batched() -> None:
    units = make_units([[3, 1, 2, 9], [5, 4], [7, 8, 9]], whole=True)
    negatives = Negatives(N_ITEMS, 2, 0)
    batches = Batches(units, negatives, plan(units, batch_size=3), draw_cloze(units, index=21, share=0.5, seed=1))
    (together,) = list(batches)
    for row, unit in enumerate(batches.order[0].tolist()):
        alone = batches.only(torch.tensor([unit]))[0]
        length = int(units.lengths[unit])
        for name, value in alone.items():
            assert torch.equal(together[name][row, :length], value[0])
            assert not together[name][row, length:].any()


def test_batches_can_be_iterated_again() -> None:
    units = make_units([[3, 1, 2], [5, 4], [7, 8, 9, 1]], whole=True)
    batches = Batches(units, Negatives(N_ITEMS, 2, 0), plan(units, batch_size=2))
    first, second = list(batches), list(batches)
    assert len(batches) == len(first) == 2
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_shared_negatives_are_the_same_at_every_position_of_a_unit() -> None:
    units = make_units([[3, 1, 2, 9], [5, 4], [7, 8, 9]], whole=True)
    drawn = batch(units, Negatives(10**6, 5, 0, share=True), torch.arange(3))["negatives"]
    assert drawn.shape == (3, 1, 5)
    assert len(drawn.unique()) == 15
    everywhere = drawn_for(units, Negatives(10**6, 5, 0, share=True))
    assert torch.equal(everywhere, drawn[:, 0].repeat_interleave(units.lengths, dim=0))
    own = [batch(units, Negatives(10**6, 1, 0, share=share), torch.arange(3))["negatives"] for share in (True, False)]
    assert torch.equal(*own)  # one alone is no position's but its own


@pytest.mark.parametrize("whole", [True, False])
def test_batches_are_kept_where_the_room_for_their_negatives_is_little(
    whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four numbers a position and its negatives, also where the last alone counts; or the negatives of a unit."""
    units = make_units([[3, 1, 2], [5, 4], [7, 8, 9, 1]], whole=whole)
    for most, kept in ((54, 2), (53, 0)):
        monkeypatch.setattr("dealrec.surrogate.units.HELD", most)
        batches = Batches(units, Negatives(N_ITEMS, 2, 0), plan(units, batch_size=2))
        assert len(list(batches)) == 2
        assert len(batches.kept) == kept
    for most, kept in ((42, 2), (41, 0)):  # six negatives in the place of eighteen
        monkeypatch.setattr("dealrec.surrogate.units.HELD", most)
        batches = Batches(units, Negatives(N_ITEMS, 2, 0, share=True), plan(units, batch_size=2))
        assert len(list(batches)) == 2
        assert len(batches.kept) == kept
