"""Every method: what all have in common, and a case by hand for each."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from dealrec.errors import ConfigError, DealrecError
from dealrec.selection import combine_scores, coverage_sample
from dealrec.selection.methods import METHODS, Method, chosen, method_of

N = 60


def candidates(n: int = N, seed: int = 0) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    targets = draw.integers(1, 9, n)
    table = {
        "sample_id": np.arange(n) * 3,
        "user_id": [f"u{i}" for i in range(n)],
        "history": [draw.integers(1, 9, draw.integers(1, 6)).tolist() for _ in range(n)],
        "target": targets,
        "timestamp": draw.integers(0, 20, n),
        "history_length": draw.integers(1, 9, n),
        "train_share": np.bincount(targets, minlength=9)[targets] / n,
        "valid_share": np.linspace(0, 0.2, 9)[targets],
        **{
            name: draw.normal(size=n)
            for name in ("influence", "surrogate_loss", "surrogate_loss_drop", "surrogate_error")
        },
        "surrogate_state": draw.normal(size=(n, 3)),
        "text_embedding": draw.normal(size=(n, 4)),
        **{name: draw.normal(size=n) for name in ("loss", "effort", "loss_drop", "alignment")},
    }
    return pl.DataFrame(table)


def select(name: str, table: pl.DataFrame, budget: int = 7, *, seed: int = 0, **options: Any) -> pl.DataFrame:
    method = METHODS[name]
    generator = torch.Generator().manual_seed(seed)
    valid = candidates(40, seed=1).with_columns(pl.col("sample_id") + 1000)
    return chosen(
        method, table.select("sample_id", *method.reads(options)), budget, generator, options=options, valid=valid
    )


@pytest.mark.parametrize("name", METHODS)
def test_any_method_selects_so_many_candidates_once_each_and_repeats_itself(name: str) -> None:
    table = candidates()
    first = select(name, table)
    assert len(first) == 7
    assert first["sample_id"].n_unique() == 7
    assert set(first["sample_id"]) <= set(table["sample_id"])
    assert first["score"].is_finite().all()
    assert (first["reason"].str.len_chars() > 0).all()
    assert select(name, table).equals(first)
    assert len(select(name, table, 1)) == 1
    assert sorted(select(name, table, N)["sample_id"]) == sorted(table["sample_id"])
    assert sorted(select(name, table, N + 5)["sample_id"]) == sorted(table["sample_id"])
    assert METHODS[name].summary.endswith(".")


@pytest.mark.parametrize("name", METHODS)
def test_any_method_takes_candidates_that_are_all_alike(name: str) -> None:
    alike = candidates().with_columns(
        *(pl.lit(0.5).alias(c) for c in ("influence", "effort", "loss", "loss_drop", "surrogate_loss")),
        pl.lit(0.5).alias("surrogate_loss_drop"),
        pl.lit(3).alias("target"),
        pl.lit(7).alias("timestamp"),
        pl.lit(2).alias("history_length"),
        pl.Series("surrogate_state", np.ones((N, 3))),
        pl.Series("text_embedding", np.ones((N, 4))),
    )
    assert len(select(name, alike)) == 7


@pytest.mark.parametrize(
    ("name", "column"),
    [
        *(("influence", "influence"), ("effort", "effort"), ("el2n", "surrogate_error")),
        ("longest-history", "history_length"),
    ],
)
def test_the_plain_top_is_that_of_its_column(name: str, column: str) -> None:
    table = candidates()
    least = select(name, table).join(table, on="sample_id")[column].min()
    assert least >= table[column].sort(descending=True)[6]


def test_the_most_recent_are_the_newest_and_the_window_is_drawn_from_them() -> None:
    table = candidates()
    newest = select("most-recent", table).join(table, on="sample_id")["timestamp"]
    assert sorted(newest, reverse=True) == table["timestamp"].sort(descending=True)[:7].to_list()
    drawn = [select("latest-window", table, 3, seed=seed, share=0.2) for seed in range(30)]
    reached = pl.concat(drawn)["sample_id"].unique()
    window = table.sort("timestamp", descending=True)
    assert window.filter(pl.col("sample_id").is_in(reached.implode()))["timestamp"].min() >= window["timestamp"][11]
    assert len(reached) >= 11  # of twelve, and of those that tie with the last


@pytest.mark.slow
def test_random_draws_every_candidate_alike() -> None:
    counts = np.zeros(N)
    for seed in range(400):
        counts[select("random", candidates(), seed=seed)["sample_id"].to_numpy() // 3] += 1
    assert abs(counts - 400 * 7 / N).max() < 5 * (400 * 7 / N) ** 0.5


def test_dealrec_is_overall_score_and_coverage() -> None:
    table = candidates()
    overall = combine_scores(table["influence"].to_torch(), table["effort"].to_torch(), effort_weight=0.5)
    rows = coverage_sample(overall, 7, strata=5, seed=4)
    selected = select("dealrec", table, seed=4, effort_weight=0.5, strata=5)
    assert sorted(selected["sample_id"]) == sorted(table["sample_id"].gather(rows.numpy()))
    assert selected["score"].to_list() == pytest.approx(overall[selected["sample_id"].to_torch() // 3].tolist())
    hardest = table["sample_id"][int(overall.argmax())]
    assert hardest not in select("dealrec", table, 50, hard_prune=0.1)["sample_id"].to_list()


def test_influence_over_its_strata() -> None:
    table = pl.DataFrame({"sample_id": range(6), "influence": [0.0, 0.01, 0.02, 0.5, 0.99, 1.0]})
    chosen_ids = select("influence-strata", table, 3, strata=3)["sample_id"].to_list()
    assert [len({0, 1, 2} & set(chosen_ids)), 3 in chosen_ids, len({4, 5} & set(chosen_ids))] == [1, True, 1]


def test_of_each_cluster_of_users_the_nearest_to_its_centre() -> None:
    states = [[0.0, 0.0], [0.0, 0.3], [0.0, 1.5], [9.0, 9.0], [9.0, 9.5], [9.0, 11.5]]  # centres at 0.6 and 10
    table = pl.DataFrame({"sample_id": range(6), "surrogate_state": np.array(states)})
    assert sorted(select("tf-dcon", table, 2)["sample_id"]) == [1, 4]
    assert select("tf-dcon", table, 2)["score"].to_list() == pytest.approx([-0.3, -0.5])


def test_every_candidate_has_one_like_it_among_the_selected() -> None:
    """At 0, 1, 2 and 11: the mean squared distance is 2 * 19.25 = 38.5, beyond which nothing is alike."""
    table = pl.DataFrame({"sample_id": range(4), "text_embedding": np.array([[0.0], [1.0], [2.0], [11.0]])})
    rows = select("facility-location", table, 2)
    assert rows["sample_id"].to_list() == [1, 3]
    assert rows["score"].to_list() == pytest.approx([(37.5 + 38.5 + 37.5) / 4, 38.5 / 4])
    drawn = [select("facility-location", table, 1, seed=seed, candidates=1)["sample_id"][0] for seed in range(30)]
    assert set(drawn) == {0, 1, 2, 3}


def test_half_are_active_users_and_half_of_each_cluster() -> None:
    """The long histories lie in one cluster; of the two others, of very different size, one sample each."""
    states = np.array([[0.0, 0.0]] * 20 + [[9.0, 0.0]] * 3 + [[0.0, 9.0]] * 40)
    lengths = [0] * 23 + [0] * 38 + [10**6] * 2
    table = pl.DataFrame({"sample_id": range(63), "history_length": lengths, "surrogate_state": states})
    rows = select("recranker", table, 5, clusters=3)
    active = rows.filter(pl.col("reason") == "an active user")["sample_id"].to_list()
    assert {61, 62} <= set(active)
    assert len(active) == 3
    clusters = {int(i) // 20 if i < 20 else 1 if i < 23 else 2 for i in rows["sample_id"].to_list()[3:]}
    assert len(clusters) == 2


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("loss-drop", ["loss_drop"]),
        ("surrogate-loss-drop", ["surrogate_loss_drop"]),
        ("influence-quota", ["influence"]),
        ("alignment", ["alignment"]),
        ("both-loss-drops", ["loss_drop", "surrogate_loss_drop"]),
    ],
)
def test_a_quota_takes_the_best_of_each_target_as_validation_has_them(name: str, columns: list[str]) -> None:
    scores = {column: [9.0, 8.0, 7.0, 6.0, 5.0, 4.0] for column in columns}
    rows = {"sample_id": range(6), "target": [1, 1, 1, 2, 2, 3], "valid_share": [0.5] * 3 + [0.25] * 2 + [0.0]}
    table = pl.DataFrame({**rows, **scores, "train_share": [0.5] * 3 + [0.3] * 2 + [0.2]})
    assert select(name, table, 4, spread="quota")["sample_id"].to_list() == [0, 1, 3, 5]
    assert select(name, table, 4, spread="quota")["reason"].to_list() == [
        *("no. 1 of its target, 50% of validation", "no. 2 of its target, 50% of validation"),
        *("no. 1 of its target, 25% of validation", "no. 1 of its target, 0% of validation"),
    ]
    assert select(name, table, 4, spread="top")["sample_id"].to_list() == [0, 1, 2, 3]
    assert sorted(select(name, table, 2, spread="best-share", share=0.3)["sample_id"]) == [0, 1]


def test_a_quota_of_clusters_takes_the_best_of_each_as_validation_has_them() -> None:
    """Targets that never repeat, in two clusters of which validation has three of four and none."""
    rows = {"sample_id": range(6), "target": range(6), "valid_share": [0.0] * 6, "influence": [9.0, 8, 7, 6, 5, 4]}
    rows["train_share"] = [1 / 6] * 6
    clusters = {"target_cluster": [4, 4, 4, 4, 7, 7], "cluster_share": [0.75] * 4 + [0.0] * 2}
    table = pl.DataFrame({**rows, **clusters})
    selected = select("influence-quota", table, 4, spread="cluster-quota")
    assert selected["sample_id"].to_list() == [0, 1, 2, 4]  # three of 4 at most, one of 7
    assert selected["reason"][3] == "no. 1 of its cluster, 0% of validation"
    assert select("influence-quota", table, 4)["sample_id"].to_list() == [0, 1, 2, 3]


def test_a_quota_by_popularity_gives_popular_targets_their_share() -> None:
    """Four rare targets score highest; of the fifth, popular, validation has half."""
    rows = {"sample_id": range(8), "target": [0, 1, 2, 3, 4, 4, 4, 4], "valid_share": [0.125] * 4 + [0.5] * 4}
    scores = {"train_share": [0.125] * 4 + [0.5] * 4, "influence": [9.0, 8, 7, 6, 5, 4, 3, 2]}
    table = pl.DataFrame({**rows, **scores})
    selected = select("influence-quota", table, 4)
    assert selected["sample_id"].to_list() == [0, 1, 4, 5]
    assert selected["reason"][3] == "no. 2 of its target, 50% of validation"
    assert select("influence-quota", table, 4, spread="quota")["sample_id"].to_list() == [0, 1, 2, 3]


def test_an_option_asks_for_its_signals_alone() -> None:
    method = METHODS["influence-quota"]
    shares = ("train_share", "valid_share")
    assert method.reads({}) == method.reads({"spread": "top"}) == ("influence", "target", *shares)
    assert method.reads({"spread": "cluster-quota"})[4:] == ("target_cluster", "cluster_share")
    unknown = {"spread": {"top": ("text_embeding",)}}
    with pytest.raises(ConfigError, match="Did you mean text_embedding"):
        method_of("mine", SimpleNamespace(select=len, SIGNALS=(), OPTION_SIGNALS=unknown))


def test_both_drops_count_by_rank() -> None:
    table = pl.DataFrame(
        {
            "sample_id": [0, 1, 2],
            "target": [1, 2, 3],
            "train_share": [0.1] * 3,
            "valid_share": [0.1] * 3,
            "loss_drop": [1e6, 2.0, 1.0],  # ranks 3, 2, 1
            "surrogate_loss_drop": [0.1, 0.3, 0.2],  # ranks 1, 3, 2
        }
    )
    rows = select("both-loss-drops", table, 3)
    assert rows["sample_id"].to_list() == [1, 0, 2]
    assert rows["score"].to_list() == pytest.approx([5 / 6, 4 / 6, 3 / 6])


def test_the_middle_of_the_loss() -> None:
    table = pl.DataFrame({"sample_id": range(5), "loss": [100.0, 3.0, 2.0, 1.0, -50.0]})
    # Ranks 5, 4, 3, 2, 1 of five: 0.6 and 0.4 are nearest to the middle.
    assert sorted(select("middle-loss", table, 2)["sample_id"]) == [2, 3]


def test_ccs_drops_the_hardest_and_covers_the_rest() -> None:
    table = pl.DataFrame({"sample_id": range(10), "surrogate_loss": [*map(float, range(9)), 1000.0]})
    drawn = {i for seed in range(20) for i in select("ccs", table, 3, seed=seed, beta=0.1, strata=3)["sample_id"]}
    assert drawn == set(range(9))
    assert len(select("ccs", table, 10, beta=0.1)) == 10  # no more is dropped than there is to spare


def test_importance_resampling_weighs_by_what_validation_has_more_of() -> None:
    method = METHODS["importance-resampling"]
    rows = {"sample_id": range(40), "target": [1] * 20 + [2] * 20, "history": [[3]] * 40}
    table = pl.DataFrame(rows)
    valid = pl.DataFrame({"sample_id": range(100, 110), "target": [1] * 9 + [2], "history": [[3]] * 10})

    def drawn(**options: Any) -> pl.DataFrame:
        tables = [
            chosen(method, table, 10, torch.Generator().manual_seed(seed), options=options, valid=valid)
            for seed in range(50)
        ]
        return pl.concat(tables)

    scores = drawn(buckets=4).unique("score").sort("score")["score"].to_list()
    # Pseudo-counts of one in four buckets: ((1 + 1) / 14) / ((20 + 1) / 44) and ((9 + 1) / 14) / ((20 + 1) / 44).
    assert scores == pytest.approx([np.log(2 / 14 / (21 / 44)), np.log(10 / 14 / (21 / 44))])
    ones = float((drawn(buckets=4).join(table, on="sample_id")["target"].to_numpy() == 1).mean())
    assert 0.70 < ones < 0.90  # five times the weight: 10 of 40 without replacement
    other = valid.with_columns(history=pl.Series([[7]] * 10))
    ids = [
        chosen(method, table, 10, torch.Generator().manual_seed(0), options={"features": "target+history"}, valid=v)
        for v in (valid, other)
    ]
    assert ids[0]["score"].to_list() != ids[1]["score"].to_list()


def test_validation_samples_are_chosen_among_themselves() -> None:
    assert METHODS["validation"].of_validation
    assert [name for name, method in METHODS.items() if method.of_validation] == ["validation"]


def of(select_: Any, signals: Any = ("influence",)) -> Method:
    return method_of("mine", SimpleNamespace(select=select_, SIGNALS=signals, __doc__="Mine."))


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (SimpleNamespace(SIGNALS=()), "lacks a function select"),
        (SimpleNamespace(select=lambda: None), "lacks a tuple SIGNALS"),
        (SimpleNamespace(select=lambda: None, SIGNALS=("influenc",)), "Did you mean influence"),
    ],
)
def test_a_module_of_another_form_is_refused(module: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        method_of("mine", module)


def rows_of(ids: list[int], scores: list[float] | None = None) -> pl.DataFrame:
    return pl.DataFrame({"sample_id": ids, "score": scores or [1.0] * len(ids), "reason": ["so"] * len(ids)})


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (rows_of([1, 1]), "an id twice, 1"),
        (rows_of([1, 7]), "no candidates, such as 7"),
        (rows_of([1]), "1 samples instead of 2"),
        (rows_of([1, 2], [1.0, float("nan")]), "NaN"),
        (rows_of([1, 2]).drop("score"), "no table with score"),
        (rows_of([1, 2]).with_columns(pl.lit("x").alias("score")), "other types"),
        (None, "no table with sample_id"),
    ],
)
def test_a_method_that_returns_no_selection_is_named(returned: Any, told: str) -> None:
    table = pl.DataFrame({"sample_id": [1, 2, 3], "influence": [1.0, 2.0, 3.0]})
    with pytest.raises(DealrecError, match=f"The method mine returned .*{told}"):
        chosen(of(lambda *_: returned), table, 2, torch.Generator())


def test_a_method_that_raises_is_named_with_its_reason() -> None:
    def fails(*_: Any) -> pl.DataFrame:
        raise KeyError("influenza")

    table = pl.DataFrame({"sample_id": [1], "influence": [1.0]})
    with pytest.raises(DealrecError, match="The method mine failed with KeyError: 'influenza'"):
        chosen(of(fails), table, 1, torch.Generator())


def test_an_option_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"dealrec has no option 'strat'\. It has: effort_weight, strata, hard_prune"):
        select("dealrec", candidates(), strat=3)
