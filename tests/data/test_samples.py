"""Samples against a plain loop over users, and by hand."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dealrec.columns import HISTORY, ITEM, POSITION, SAMPLE, TARGET, TIMESTAMP, USER
from dealrec.data.samples import Targets, held_out_samples, training_samples
from dealrec.data.splits import Splits, with_positions

Row = tuple[int, int, list[int], int]
COUNTS = st.lists(st.integers(0, 7), min_size=1, max_size=6)


def table(rows: list[tuple[int, int, int]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={USER: pl.Int64, ITEM: pl.Int64, POSITION: pl.Int64}, orient="row")


def logs(counts: list[int]) -> list[tuple[int, int, int]]:
    # Users 10, 20, ...; item ids tell the user and the position.
    return [(10 * u, 100 * u + p, p) for u, count in enumerate(counts, start=1) for p in range(count)]


def loop_over_users(rows: list[tuple[int, int, int]], samples_per_user: int, max_history: int) -> list[Row]:
    samples: list[Row] = []
    for user in sorted({user for user, _, _ in rows}):
        items = [item for owner, item, _ in sorted(rows, key=lambda row: row[2]) if owner == user]
        for place in range(max(1, len(items) - samples_per_user), len(items)):
            samples.append((len(samples), user, items[max(0, place - max_history) : place], items[place]))
    return samples


@pytest.mark.slow
@given(counts=COUNTS, samples_per_user=st.integers(1, 9), max_history=st.integers(1, 9), data=st.data())
@settings(max_examples=100, deadline=None)
def test_training_samples_are_those_of_a_loop_over_users_in_any_row_order(
    counts: list[int], samples_per_user: int, max_history: int, data: st.DataObject
) -> None:
    rows = logs(counts)
    shuffled = data.draw(st.permutations(rows))
    samples = training_samples(table(shuffled), samples_per_user=samples_per_user, max_history=max_history)
    assert samples.rows() == loop_over_users(rows, samples_per_user, max_history)


def test_last_two_positions_of_a_user_with_four_items() -> None:
    train = table([(1, 5, 0), (1, 6, 1), (1, 7, 2), (1, 8, 3), (2, 5, 0)])
    samples = training_samples(train, samples_per_user=2, max_history=2)
    assert samples.rows() == [(0, 1, [5, 6], 7), (1, 1, [6, 7], 8)]
    assert samples.columns == [SAMPLE, USER, HISTORY, TARGET]


@pytest.mark.parametrize(("items", "expected"), [(1, 0), (2, 1), (3, 2), (4, 3), (5, 3)])
def test_a_user_with_m_items_yields_min_n_and_m_minus_one_samples(items: int, expected: int) -> None:
    samples = training_samples(table(logs([items])), samples_per_user=3, max_history=50)
    assert samples.height == expected


def test_string_ids_and_a_gap_in_the_positions() -> None:
    train = pl.DataFrame({USER: ["s2", "s2", "s1", "s1"], ITEM: ["b", "a", "c", "d"], POSITION: [4, 2, 0, 9]})
    samples = training_samples(train, samples_per_user=1, max_history=50)
    assert samples.rows() == [(0, "s1", ["c"], "d"), (1, "s2", ["a"], "b")]


def test_an_item_bought_again_stays_in_the_history() -> None:
    samples = training_samples(table([(1, 5, 0), (1, 5, 1), (1, 5, 2)]), samples_per_user=1, max_history=50)
    assert samples.rows() == [(0, 1, [5, 5], 5)]


@pytest.mark.parametrize("item_type", [pl.Int64(), pl.String()])
def test_no_samples_still_have_their_types(item_type: pl.DataType) -> None:
    empty = pl.DataFrame(schema={USER: pl.String(), ITEM: item_type, POSITION: pl.Int64()})
    types = {SAMPLE: pl.Int64(), USER: pl.String(), HISTORY: pl.List(item_type), TARGET: item_type}
    assert dict(training_samples(empty, samples_per_user=1, max_history=3).schema) == types
    assert dict(held_out_samples(empty, empty, max_history=3).schema) == types | {POSITION: pl.Int64()}


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["first", "last", "all"])
@given(earlier=COUNTS, later=COUNTS, max_history=st.integers(1, 9), data=st.data())
@settings(max_examples=100, deadline=None)
def test_held_out_samples_are_those_of_a_loop_over_users(
    targets: Targets, earlier: list[int], later: list[int], max_history: int, data: st.DataObject
) -> None:
    """Of some held-out items nothing is known; they are in no history, and the target where there is no other."""
    first = logs(earlier)
    unknown = data.draw(st.sets(st.integers(0, 7)))
    second = [(user, None if place in unknown else item + 50, place + 50) for user, item, place in logs(later)]
    expected: list[tuple[object, ...]] = []
    for user in sorted({user for user, _, _ in second}):
        own = sorted((row for row in second if row[0] == user), key=lambda row: row[2])
        known = [row for row in own if row[1] is not None] or own
        for chosen in {"first": known[:1], "last": known[-1:], "all": own}[targets]:
            before = [row for row in [*first, *own] if row[0] == user and row[2] < chosen[2] and row[1] is not None]
            history = [item for _, item, _ in sorted(before, key=lambda row: row[2])]
            if history:
                expected.append((len(expected), user, history[-max_history:], chosen[1], chosen[2]))
    columns = {USER: pl.Int64, ITEM: pl.Int64, POSITION: pl.Int64}
    held_out = pl.DataFrame(data.draw(st.permutations(second)), schema=columns, orient="row")
    samples = held_out_samples(
        table(data.draw(st.permutations(first))), held_out, max_history=max_history, targets=targets
    )
    assert samples.rows() == expected


def test_a_held_out_item_of_null_is_a_target_only_where_the_user_has_no_other() -> None:
    earlier = table([(1, 5, 0), (2, 6, 0), (3, 7, 0)])
    held_out = pl.DataFrame({USER: [1, 1, 2, 2, 4], ITEM: [None, 8, None, None, 9], POSITION: [1, 2, 1, 2, 0]})
    samples = held_out_samples(earlier, held_out, max_history=50)
    # User 3 has nothing held out, user 4 nothing before.
    assert samples.rows() == [(0, 1, [5], 8, 2), (1, 2, [6], None, 1)]


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_row_order_does_not_matter_when_times_are_distinct(data: st.DataObject) -> None:
    events = [(user, 10 * user + time, 7 * time) for user in (1, 2, 3) for time in range(user + 1)]
    columns = {USER: pl.Int64, ITEM: pl.Int64, TIMESTAMP: pl.Int64}

    def samples(rows: list[tuple[int, int, int]]) -> list[tuple[object, ...]]:
        frame = pl.DataFrame(rows, schema=columns, orient="row")
        train = with_positions(Splits(frame, frame.clear(), frame.clear())).train
        return training_samples(train, samples_per_user=2, max_history=2).rows()

    assert samples(data.draw(st.permutations(events))) == samples(events)
