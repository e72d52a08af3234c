"""Metrics by hand arithmetic."""

from math import log2

import numpy as np
import polars as pl
import pytest

from dealrec.evaluation import Interval, bootstrap_mean, ranking_metrics, verdict


def recommended(rows: list[tuple[int, str, int]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user_id", "item_id", "rank"], orient="row")


def relevant(rows: list[tuple[int, str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row")


def test_recall_and_ndcg() -> None:
    found = ranking_metrics(
        recommended([(1, "a", 1), (1, "b", 2), (1, "c", 3), (2, "a", 1), (2, "b", 2), (2, "c", 3)]),
        relevant([(1, "a"), (1, "c"), (1, "z"), (2, "b")]),
        ks=[1, 3],
    )
    assert found["user_id"].to_list() == [1, 2]
    assert found["recall@1"].to_list() == pytest.approx([1 / 3, 0])
    assert found["recall@3"].to_list() == pytest.approx([2 / 3, 1])
    ideal = 1 / log2(2) + 1 / log2(3) + 1 / log2(4)
    assert found["ndcg@3"].to_list() == pytest.approx([(1 / log2(2) + 1 / log2(4)) / ideal, 1 / log2(3)])
    assert found["ndcg@1"].to_list() == pytest.approx([1, 0])  # one place: the ideal is one hit


def test_mean_reciprocal_rank_counts_the_first_relevant_item_within_k() -> None:
    found = ranking_metrics(
        recommended([(1, "a", 1), (1, "b", 2), (1, "c", 3), (2, "c", 3), (2, "b", 2), (3, "c", 3)]),
        relevant([(1, "c"), (1, "b"), (2, "c"), (3, "z")]),
        ks=[2, 3],
    )
    assert found.columns[1:] == ["recall@2", "ndcg@2", "mrr@2", "recall@3", "ndcg@3", "mrr@3"]
    assert found["mrr@2"].to_list() == [1 / 2, 0, 0]
    assert found["mrr@3"].to_list() == pytest.approx([1 / 2, 1 / 3, 0])


def test_a_user_without_recommendations_scores_nothing_and_one_without_relevant_items_is_not_counted() -> None:
    found = ranking_metrics(recommended([(9, "a", 1)]), relevant([(1, "a")]), ks=[5])
    assert found.rows() == [(1, 0.0, 0.0, 0.0)]


def test_a_relevant_item_listed_twice_counts_once() -> None:
    found = ranking_metrics(recommended([(1, "a", 1)]), relevant([(1, "a"), (1, "a")]), ks=[5])
    assert found.rows() == [(1, 1.0, 1.0, 1.0)]


def test_the_same_numbers_to_the_bit_on_every_call() -> None:
    draw = np.random.default_rng(0)
    rows = [(user, f"i{item}", rank) for user in range(40) for rank, item in enumerate(draw.permutation(60), 1)]
    wanted = relevant([(user, f"i{item}") for user in range(40) for item in draw.permutation(60)[:20]])
    first = ranking_metrics(recommended(rows), wanted, ks=[5, 30])
    for _ in range(20):
        assert ranking_metrics(recommended(rows), wanted.sample(fraction=1, shuffle=True), ks=[5, 30]).equals(first)


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        found = bootstrap_mean(draw.normal(1.0, 2.0, 60), confidence=0.9, resamples=400, seed=trial)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 1.0 <= found.high
    assert 0.83 <= covered / 200 <= 0.96


def test_no_interval_where_resampling_says_nothing() -> None:
    assert bootstrap_mean(np.zeros(50), confidence=0.95, resamples=100, seed=0) == Interval(0.0, None, None, 50)
    assert bootstrap_mean(np.ones(1), confidence=0.95, resamples=100, seed=0) == Interval(1.0, None, None, 1)


@pytest.mark.parametrize(
    ("low", "high", "lower_is_better", "said"),
    [
        (0.1, 0.2, False, "better"),
        (0.1, 0.2, True, "worse"),
        (-0.2, -0.1, True, "better"),
        (-0.2, -0.1, False, "worse"),
        (-0.1, 0.2, True, "not distinguishable"),
        (0.0, 0.2, False, "not distinguishable"),
        (None, None, False, "not distinguishable"),
    ],
)
def test_verdict(low: float | None, high: float | None, lower_is_better: bool, said: str) -> None:
    assert verdict(Interval(0.0, low, high, 10), lower_is_better=lower_is_better) == said
