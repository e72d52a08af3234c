"""Buckets of the coverage by hand arithmetic."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dealrec.columns import (
    CATEGORY,
    HISTORY,
    ITEM,
    POSITION,
    SAMPLE,
    TARGET,
    TIMESTAMP,
    TRAIN_COUNT,
    USER,
)
from dealrec.config import Config
from dealrec.data.samples import training_samples
from dealrec.engine.run_directory import Run, read_table
from dealrec.reporting.coverage import (
    ACTIVITY,
    Group,
    bucket_shares,
    by_category,
    reach,
    sample_groups,
    sample_quantities,
    spreads,
    upper_ends,
)
from tests.reporting.made import opened_run

MakeRun = Callable[..., Path]


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [2, 4, 6, 8, 10]),
        ([3, 1, 2], [1, 2, 3]),  # few different values: a bucket each
        ([7, 7, 7], [7]),
        ([1] * 8 + [2, 3, 4, 5, 6, 7], [1, 2, 5, 7]),  # the 3rd, 6th, 9th, 12th and 14th of 14 are 1, 1, 2, 5, 7
        ([], []),
    ],
)
def test_upper_ends_by_hand(values: list[int], ends: list[int]) -> None:
    assert upper_ends(np.array(values, dtype=np.float64)).tolist() == ends


def test_every_value_falls_into_one_bucket() -> None:
    values = np.random.default_rng(0).zipf(1.5, size=500).astype(np.float64)
    shares = bucket_shares(values, upper_ends(values))
    assert shares.sum() == pytest.approx(1.0)
    assert (shares > 0).all()
    assert bucket_shares(np.zeros(0), np.array([1.0, 2.0])).tolist() == [0.0, 0.0]


def both(run_dir: Path, config: Config) -> tuple[Run[Config], dict[str, pl.DataFrame]]:
    run = opened_run(run_dir, config)
    return run, dict(sample_groups(run, read_table(run_dir / "data" / "samples-train.parquet")))


def test_shares_of_all_pool_and_selected_by_hand(make_run: MakeRun, config: Config) -> None:
    run, found = both(make_run(), config)
    activity, popularity, time = spreads(run, found)
    # Samples 0, 1, 2, 3 have users with 4, 3, 2, 2 interactions; the pool is 0, 1, 2, and 0, 2 are selected.
    assert {b.label: b.shares for b in activity.buckets} == {
        "2": (2 / 4, 1 / 3, 1 / 2),
        "3": (1 / 4, 1 / 3, 0 / 2),
        "4": (1 / 4, 1 / 3, 1 / 2),
    }
    # Their targets 4, 5, 3, 1 have 1, 1, 2, 4 interactions.
    assert {b.label: b.shares for b in popularity.buckets} == {
        "1": (2 / 4, 2 / 3, 1 / 2),
        "2": (1 / 4, 1 / 3, 1 / 2),
        "4": (1 / 4, 0 / 3, 0 / 2),
    }
    # Their targets' days: 100 * (user + position) = 400, 400, 400, 500 after 2001-09-09.
    assert time.name == "Time of the target"
    assert {b.label: b.shares for b in time.buckets} == {
        "2002-10-14": (3 / 4, 3 / 3, 2 / 2),
        "2003-01-22": (1 / 4, 0 / 3, 0 / 2),
    }
    assert reach(found) == [Group("all", 4, 4, 4), Group("pool", 3, 3, 3), Group("selected", 2, 2, 2)]


def test_before_the_pool_there_are_all_samples_only(make_run: MakeRun, config: Config) -> None:
    run, found = both(make_run("influence"), config)
    assert list(found) == ["all"]
    assert all(len(bucket.shares) == 1 for spread in spreads(run, found) for bucket in spread.buckets)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"format": "dealrec"}, "Position of the target within its user"),
        ({"columns": {"timestamp": None}}, "Row of the target in the file"),
    ],
)
def test_what_is_no_time_is_not_called_one(
    make_run: MakeRun, config: Config, change: dict[str, object], name: str
) -> None:
    run, found = both(make_run("data"), Config.model_validate({**config.model_dump(), "data": change}))
    time = spreads(run, found)[2]
    assert time.name == name
    assert not any("2002-" in bucket.label for bucket in time.buckets)


def test_each_of_a_users_samples_has_the_time_of_its_own_target() -> None:
    # User 1 has had item 7 twice: the target's time is that of its position, not of the item.
    train = pl.DataFrame(
        {
            USER: [1, 1, 1, 1, 2, 2],
            ITEM: [7, 8, 7, 9, 7, 8],
            POSITION: [0, 1, 2, 3, 0, 1],
            TIMESTAMP: [10, 20, 30, 40, 50, 60],
        }
    )
    items = pl.DataFrame({ITEM: [7, 8, 9], TRAIN_COUNT: [3, 2, 1]})
    samples = training_samples(train, samples_per_user=2, max_history=50)
    assert samples.select(USER, HISTORY, TARGET).rows() == [(1, [7, 8], 7), (1, [7, 8, 7], 9), (2, [7], 8)]
    found = sample_quantities(samples, train, items).sort(SAMPLE)
    assert found.rows(named=True) == [
        {SAMPLE: 0, ACTIVITY: 4, TRAIN_COUNT: 3, TIMESTAMP: 30},
        {SAMPLE: 1, ACTIVITY: 4, TRAIN_COUNT: 1, TIMESTAMP: 40},
        {SAMPLE: 2, ACTIVITY: 2, TRAIN_COUNT: 2, TIMESTAMP: 60},
    ]


def test_categories_of_the_targets_by_hand(make_run: MakeRun, config: Config) -> None:
    # The samples' targets are the items 4, 5, 3, 1; the pool is the first three, the first and third are selected.
    genres = {4: ["War", "Drama"], 5: ["Drama"], 3: ["War"], 2: ["Western"]}
    run, found = both(make_run(categories=genres), config)
    named = spreads(run, found)[-1]
    assert named.name == "Targets by category"
    assert "add up to more than 100%" in named.note
    assert [(b.label, b.shares) for b in named.buckets] == [
        ("Drama", (2 / 4, 2 / 3, 1 / 2)),
        ("War", (2 / 4, 2 / 3, 2 / 2)),
        ("no category", (1 / 4, 0 / 3, 0 / 2)),
    ]
    # No sample's target is a western, so none could be lost.
    assert [category.label for category in named.categories] == ["Drama", "War"]
    assert [named.lost(place) for place in range(3)] == [[], [], []]


def test_the_largest_categories_have_a_line_each_and_the_others_share_one() -> None:
    items = pl.DataFrame({ITEM: [1, 2, 3], CATEGORY: [["a", "b", "c"], ["a", "b"], ["a", "d"]]})
    everyone = pl.DataFrame({SAMPLE: [0, 1, 2, 3], TARGET: [1, 2, 3, 2]})
    found = {"all": everyone, "selected": everyone.filter(pl.col(TARGET) == 2)}
    named = by_category(items, found, most=2)
    assert named is not None
    # Item 1 is of b and c, but counts once among the others.
    assert [(b.label, b.shares) for b in by_category(items, found, most=1).buckets] == [  # type: ignore[union-attr]
        ("a", (1.0, 1.0)),
        ("other (3 categories)", (1.0, 1.0)),
    ]
    assert [(b.label, b.shares) for b in named.buckets] == [
        ("a", (1.0, 1.0)),
        ("b", (3 / 4, 1.0)),
        ("other (2 categories)", (2 / 4, 0.0)),
    ]
    assert named.lost(0) == []
    assert named.lost(1) == ["c", "d"]  # though they have no line of their own
    alone = by_category(items, found, most=3)
    assert alone is not None
    assert [b.label for b in alone.buckets] == ["a", "b", "c", "d"]  # a line for others would hold one


def test_without_several_categories_shares_add_up_to_one() -> None:
    items = pl.DataFrame({ITEM: [1, 2, 3, 4], CATEGORY: [["a"], ["b"], ["c"], []]})
    found = {"all": pl.DataFrame({SAMPLE: [0, 1, 2, 3, 4], TARGET: [1, 2, 3, 4, 4]})}
    named = by_category(items, found, most=1)
    assert named is not None
    assert "100%" not in named.note
    assert sum(bucket.shares[0] for bucket in named.buckets) == pytest.approx(1.0)
    assert (
        by_category(items.with_columns(pl.Series(CATEGORY, [[], [], [], []], dtype=pl.List(pl.String))), found) is None
    )


def test_a_run_without_categories_has_none(make_run: MakeRun, config: Config) -> None:
    run, found = both(make_run(), config)
    assert [spread.categories for spread in spreads(run, found)] == [(), (), ()]
