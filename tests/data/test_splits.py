"""Splits, filters and catalogue: by hand, against slow twins, and what must not depend on what."""

from collections import Counter
from typing import Any

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dealrec.columns import ITEM, ITEM_INDEX, POSITION, RATING, SPLIT, TIMESTAMP, TITLE, TRAIN_COUNT, USER
from dealrec.data.samples import training_samples
from dealrec.data.splits import (
    Splits,
    absent_items,
    catalogue,
    drop_repeats,
    k_core,
    min_rating,
    split_by_column,
    split_by_time,
    split_leave_last_out,
    with_positions,
)
from dealrec.errors import DataError

Event = tuple[int, int, int]
EVENTS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 12)), min_size=1, max_size=30)


def log(events: list[Event]) -> pl.DataFrame:
    return pl.DataFrame(events, schema={USER: pl.Int64, ITEM: pl.Int64, TIMESTAMP: pl.Int64}, orient="row")


def items_of(splits: Splits) -> list[list[int]]:
    return [part[ITEM].to_list() for part in (splits.train, splits.valid, splits.test)]


def test_time_split_of_ten_distinct_times() -> None:
    parts = split_by_time(log([(1, i, i) for i in range(10)]), valid_share=0.2, test_share=0.1)
    assert items_of(parts) == [[0, 1, 2, 3, 4, 5, 6], [7, 8], [9]]


def test_ties_at_a_cut_go_to_the_later_part() -> None:
    # Of 10 rows the cuts fall on rows 6 and 8; rows 5 and 6 tie, and so do 7 and 8.
    times = [0, 1, 2, 3, 4, 5, 5, 6, 6, 7]
    parts = split_by_time(log([(1, i, t) for i, t in enumerate(times)]), valid_share=0.2, test_share=0.2)
    assert items_of(parts) == [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]]


@pytest.mark.slow
@given(events=EVENTS, valid=st.floats(0.05, 0.45), test=st.floats(0.05, 0.45))
@settings(max_examples=100, deadline=None)
def test_no_training_time_reaches_validation_and_no_validation_time_the_test(
    events: list[Event], valid: float, test: float
) -> None:
    try:
        parts = split_by_time(log(events), valid_share=valid, test_share=test)
    except DataError:
        assume(False)
    times = [part[TIMESTAMP].to_list() for part in (parts.train, parts.valid, parts.test)]
    assert max(times[0]) < min(times[1]) <= max(times[1]) < min(times[2])
    assert sorted([*times[0], *times[1], *times[2]]) == sorted(time for _, _, time in events)
    assert len(times[2]) >= max(1, round(len(events) * test))


@pytest.mark.parametrize("times", [[5] * 20, [1] + [5] * 19, [5] * 19 + [9], [1], [1, 2]])
def test_time_split_refuses_to_leave_a_part_empty(times: list[int]) -> None:
    with pytest.raises(DataError, match=r"no interactions are left for|too few"):
        split_by_time(log([(1, i, t) for i, t in enumerate(times)]), valid_share=0.1, test_share=0.1)


def test_column_split_keeps_the_named_parts_and_orders_by_time_then_row() -> None:
    events = log([(2, 1, 5), (1, 2, 9), (1, 3, 3), (1, 4, 3), (1, 5, 1)])
    parts = split_by_column(events.with_columns(pl.Series(SPLIT, ["train", "train", "train", "train", "test"])))
    assert items_of(parts) == [[3, 4, 2, 1], [], [5]]


@pytest.mark.parametrize(("names", "empty"), [(["train", "valid"], "test"), (["valid", "test"], "train")])
def test_column_split_needs_training_and_test(names: list[str], empty: str) -> None:
    events = log([(1, 1, 1), (1, 2, 2)]).with_columns(pl.Series(SPLIT, names))
    with pytest.raises(DataError, match=f"left for {empty}"):
        split_by_column(events)


def test_column_split_needs_the_column() -> None:
    with pytest.raises(DataError, match=r"data\.columns\.split"):
        split_by_column(log([(1, 1, 1)]))


def test_leave_last_out_by_hand() -> None:
    events = [
        (1, 13, 3),
        (1, 11, 1),
        (1, 12, 2),
        (2, 21, 1),
        (2, 22, 2),
        (3, 31, 5),
        (3, 32, 5),
        (3, 33, 5),
        (3, 34, 4),
    ]
    assert items_of(split_leave_last_out(log(events))) == [[11, 21, 22, 34, 31], [12, 32], [13, 33]]


def test_leave_last_out_needs_a_user_with_three() -> None:
    with pytest.raises(DataError, match="three interactions"):
        split_leave_last_out(log([(1, 1, 1), (1, 2, 2), (2, 1, 1)]))


def test_min_rating_keeps_the_minimum_itself() -> None:
    rated = log([(1, 1, 1), (1, 2, 2), (1, 3, 3)]).with_columns(pl.Series(RATING, [3.5, 4.0, 5.0]))
    assert min_rating(rated, minimum=4)[ITEM].to_list() == [2, 3]
    with pytest.raises(DataError, match="rated 6 or higher"):
        min_rating(rated, minimum=6)
    with pytest.raises(DataError, match=r"data\.columns\.rating"):
        min_rating(rated.drop(RATING), minimum=4)


def one_at_a_time(train: list[Event], k: int) -> list[Event]:
    """Remove one interaction at a time until none is of a rare user or a rare item."""
    left = list(train)
    while True:
        users, items = Counter(u for u, _, _ in left), Counter(i for _, i, _ in left)
        rare = next((event for event in left if users[event[0]] < k or items[event[1]] < k), None)
        if rare is None:
            return left
        left.remove(rare)


@pytest.mark.slow
@given(train=EVENTS, held_out=EVENTS, k=st.integers(0, 4))
@settings(max_examples=100, deadline=None)
def test_k_core_is_what_removing_one_at_a_time_leaves(train: list[Event], held_out: list[Event], k: int) -> None:
    kept = one_at_a_time(train, k)
    users, items = {u for u, _, _ in kept}, {i for _, i, _ in kept}
    later = [event for event in held_out if k == 0 or (event[0] in users and event[1] in items)]
    splits = Splits(log(train), log(held_out), log(held_out))
    if not kept or not later:
        with pytest.raises(DataError, match=r"data\.k_core"):
            k_core(splits, k)
        return
    core = k_core(splits, k)
    assert sorted(core.train.rows()) == sorted(kept)
    assert core.valid.rows() == later
    assert core.test.rows() == later


# A user plays 7, 8 and 7 at one moment, then 7, 7 and 8 later; another one 8 at that moment. The file mixes them.
REPEATS = log([(1, 7, 50), (1, 7, 10), (2, 8, 10), (1, 8, 10), (1, 7, 10), (1, 7, 40), (1, 8, 60)])


@pytest.mark.parametrize(
    ("repeats", "expected"),
    [
        ("keep", [(7, 10), (8, 10), (7, 10), (7, 40), (7, 50), (8, 60)]),
        ("dedupe", [(7, 10), (8, 10), (7, 40), (7, 50), (8, 60)]),
        ("collapse", [(7, 10), (8, 10), (7, 10), (8, 60)]),
        ("first", [(7, 10), (8, 10)]),
    ],
)
def test_repeats_by_hand(repeats: Any, expected: list[tuple[int, int]]) -> None:
    left = drop_repeats(REPEATS, repeats=repeats).sort(USER, TIMESTAMP, maintain_order=True)
    assert left.filter(pl.col(USER) == 1).select(ITEM, TIMESTAMP).rows() == expected
    assert left.filter(pl.col(USER) == 2).rows() == [(2, 8, 10)]


@given(events=EVENTS, repeats=st.sampled_from(["dedupe", "collapse", "first"]))
@settings(max_examples=100, deadline=None)
def test_what_is_dropped_is_what_a_loop_over_users_drops(events: list[Event], repeats: Any) -> None:
    expected: list[Event] = []
    for user, item, time in sorted(events, key=lambda event: (event[0], event[2])):
        before = [event for event in expected if event[0] == user]
        again = {
            "dedupe": (user, item, time) in before,
            "collapse": bool(before) and before[-1][1] == item,
            "first": any(event[1] == item for event in before),
        }
        if not again[repeats]:
            expected.append((user, item, time))
    assert drop_repeats(log(events), repeats=repeats).rows() == expected


@pytest.mark.parametrize("repeats", ["dedupe", "collapse", "first"])
def test_of_a_split_column_s_parts_the_earlier_one_keeps_the_item(repeats: Any) -> None:
    """By time the test part's 7 is the first; but the split says that it comes last."""
    parts = pl.Series(SPLIT, ["test", "valid", "train", "train"])
    marked = log([(1, 7, 5), (1, 7, 5), (1, 7, 5), (1, 8, 1)]).with_columns(parts)
    assert drop_repeats(marked, repeats=repeats, by_part=True).rows() == [(1, 8, 1, "train"), (1, 7, 5, "train")]


def test_positions_run_on_from_train_to_valid_to_test() -> None:
    # User 1's test interaction is older than its validation one: the part decides, then time, then the row.
    parts = Splits(log([(2, 9, 4), (1, 5, 2), (1, 6, 1)]), log([(1, 7, 8)]), log([(1, 8, 3), (3, 4, 0)]))
    numbered = with_positions(parts)
    assert numbered.train.columns == [USER, ITEM, POSITION, TIMESTAMP]
    assert numbered.train.schema[POSITION] == pl.Int64
    assert numbered.train.rows() == [(1, 6, 0, 1), (1, 5, 1, 2), (2, 9, 0, 4)]
    assert numbered.valid.rows() == [(1, 7, 2, 8)]
    assert numbered.test.rows() == [(1, 8, 3, 3), (3, 4, 0, 0)]


def test_positions_keep_ratings_and_leave_the_split_column() -> None:
    rated = log([(1, 1, 1)]).with_columns(pl.lit(4.0).alias(RATING), pl.lit("train").alias(SPLIT))
    numbered = with_positions(Splits(rated, rated.clear(), rated))
    assert numbered.test.columns == [USER, ITEM, POSITION, TIMESTAMP, RATING]


def test_catalogue_by_hand() -> None:
    items = pl.DataFrame({ITEM: ["b", "a"], TITLE: ["Bee", "Ant"]})
    train = pl.DataFrame({ITEM: ["c", "b", "c"]})
    listed = catalogue(items, train, restrict=False)
    assert listed.columns == [ITEM_INDEX, ITEM, TITLE, TRAIN_COUNT]
    assert listed.rows() == [(1, "a", "Ant", 0), (2, "b", "Bee", 1), (3, "c", "c", 2)]
    assert catalogue(items, train, restrict=True).rows() == [(1, "b", "Bee", 1), (2, "c", "c", 2)]
    assert listed.schema[ITEM_INDEX] == listed.schema[TRAIN_COUNT] == pl.Int64
    assert absent_items(items, train).rows() == [("c",)]


@pytest.mark.slow
@given(train=EVENTS, valid=EVENTS, test=EVENTS, other=EVENTS)
@settings(max_examples=50, deadline=None)
def test_another_test_part_changes_nothing_else(
    train: list[Event], valid: list[Event], test: list[Event], other: list[Event]
) -> None:
    first = with_positions(Splits(log(train), log(valid), log(test)))
    second = with_positions(Splits(log(train), log(valid), log(other)))
    assert first.train.equals(second.train)
    assert first.valid.equals(second.valid)
    samples = [training_samples(s.train, samples_per_user=2, max_history=3) for s in (first, second)]
    assert samples[0].equals(samples[1])
