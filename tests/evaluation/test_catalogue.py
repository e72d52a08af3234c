"""Coverage and popularity by hand arithmetic."""

from collections.abc import Sequence

import polars as pl
import pytest

from dealrec.evaluation import catalogue_metrics


def table(**columns: Sequence[object]) -> pl.DataFrame:
    return pl.DataFrame({name.replace("item", "item_id").replace("user", "user_id"): c for name, c in columns.items()})


CATALOGUE = table(item=["a", "b", "c", "d", "d"])  # d is listed twice and counts once
TRAIN = table(item=["a"] * 6 + ["b"] * 3 + ["c"])  # d was never interacted with


def test_coverage_and_popularity() -> None:
    recommended = table(user=[2, 1, 1, 2, 3], item=["a", "a", "b", "d", "c"], rank=[1, 1, 2, 2, 1])
    found = catalogue_metrics(recommended, CATALOGUE, TRAIN, ks=[1, 2])
    assert list(found) == ["coverage@1", "popularity@1", "coverage@2", "popularity@2"]
    assert found["coverage@1"] == 2 / 4
    assert found["popularity@1"] == pytest.approx((0.6 + 0.6 + 0.1) / 3)
    assert found["coverage@2"] == 4 / 4
    # User 3 has one item only and still weighs as much as the others.
    assert found["popularity@2"] == pytest.approx(((0.6 + 0.3) / 2 + (0.6 + 0.0) / 2 + 0.1) / 3)


def test_the_order_of_the_rows_does_not_matter() -> None:
    recommended = table(user=[i // 9 for i in range(90)], item=["abcd"[i * i % 4] for i in range(90)]).with_columns(
        rank=pl.int_range(1, pl.len() + 1).over("user_id")
    )
    found = catalogue_metrics(recommended, CATALOGUE, TRAIN, ks=[3, 9])
    shuffled = recommended.sample(fraction=1, shuffle=True, seed=0)
    assert catalogue_metrics(shuffled, CATALOGUE, TRAIN.sample(fraction=1, shuffle=True, seed=1), ks=[3, 9]) == found


def test_items_out_of_the_catalogue_and_empty_tables_are_refused() -> None:
    recommended = table(user=[1], item=["z"], rank=[1])
    with pytest.raises(ValueError, match=r"\['z'\] are recommended but not in the catalogue"):
        catalogue_metrics(recommended, CATALOGUE, TRAIN, ks=[1])
    with pytest.raises(ValueError, match="must not be empty"):
        catalogue_metrics(recommended.clear(), CATALOGUE, TRAIN, ks=[1])
