"""From small runs to the whole, by hand arithmetic: the scaling, the table of what costs grow with, and the cuts."""

import fnmatch
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dealrec.config import Config
from dealrec.config.files import load
from dealrec.engine.measure import Cost
from dealrec.engine.runner import run
from dealrec.engine.stage import Silent
from dealrec.estimates.cuts import some_rows, spread, write_cut
from dealrec.estimates.scales import ARMS, SCALES, TITLES, UNITS, WARM, axes_of
from dealrec.estimates.scaling import Axis, scaled
from dealrec.stages import STAGE_NAMES
from dealrec.stages.pipeline import stages as declared
from dealrec.stages.pipeline import stages_until

STAGES = declared(Config.model_validate({"select": {"method": "dealrec"}, "pool": {"method": "influence-strata"}}))

Write = Callable[..., Path]
Seconds = Callable[[Mapping[str, int]], float]
COUNTS = {UNITS: 1000, WARM: 500, TITLES: 3000, "valid": 90, "test": 800}


class Stage:
    """Takes, by its sizes, so many wall seconds, and twice as many of two CPUs; 100 more when it is first run."""

    def __init__(self, seconds: Seconds) -> None:
        self.seconds, self.sizes = seconds, list[dict[str, int]]()

    def __call__(self, sizes: Mapping[str, int]) -> Cost:
        self.sizes.append(dict(sizes))
        wall = self.seconds(sizes) + (100 if len(self.sizes) == 1 else 0)
        return Cost(wall, 2 * wall, 10 * len(self.sizes))


def test_imports_count_once_and_the_rest_by_what_it_grows_with() -> None:
    stage = Stage(lambda sizes: 5 + 0.5 * sizes["a"] + 3 * sizes["b"])
    axes = [Axis("a", 2, 8, limit=40), Axis("b", 1, 2, limit=30, most=50)]
    expected, most, peak = scaled(stage, axes)
    assert stage.sizes == [{"a": 2, "b": 1}] * 2 + [{"a": 10, "b": 1}, {"a": 2, "b": 3}]
    seconds = 100 + 5 + 0.5 * 40 + 3 * 30
    assert expected.tolist() == pytest.approx([seconds, 2 * seconds])
    assert most.tolist() == pytest.approx([seconds + 3 * 20, 2 * (seconds + 3 * 20)])
    assert peak == 40


def test_an_axis_grows_until_it_shows_and_not_beyond_the_run() -> None:
    """A thousandth of a second is not to be seen: the steps are 8, 4 x 8 and 16 x 8, then the run itself is done."""
    stage = Stage(lambda sizes: 1 + 0.001 * sizes["a"])
    assert scaled(stage, [Axis("a", 2, 8, limit=100)])[0][0] == pytest.approx(101 + 0.1)
    assert [sizes["a"] for sizes in stage.sizes] == [2, 2, 10, 34, 100]
    stage = Stage(lambda sizes: 1 + 0.001 * sizes["a"])
    assert scaled(stage, [Axis("a", 2, 8, limit=10**6)])[0][0] == pytest.approx(101 + 1000)
    assert [sizes["a"] for sizes in stage.sizes] == [2, 2, 10, 34, 130]


def test_what_is_cut_makes_the_cost_of_each_larger_too() -> None:
    """7 epochs over 80 units, of which 10 are tried, and there an epoch; a unit takes a second an epoch, and a half."""
    stage = Stage(lambda sizes: 4 + 0.5 * sizes["units"] + sizes["units"] * sizes["epochs"])
    axes = [
        Axis("units", 2, 8, kept=True, limit=80),
        Axis("epochs", 1, 1, per="units", limit=7),
    ]
    assert scaled(stage, axes)[0][0] == pytest.approx(100 + 4 + 0.5 * 80 + 80 * 7)
    assert stage.sizes[-1] == {"units": 10, "epochs": 2}


def test_units_can_be_measured_by_what_is_in_them() -> None:
    stage = Stage(lambda sizes: 4 + sizes["units"] ** 2)
    axes = [Axis("units", 2, 8, limit=80)]
    assert scaled(stage, axes, measure=lambda _name, size: size**2)[0][0] == pytest.approx(100 + 4 + 80**2)


def test_everything_but_what_is_done_once_is_done_for_each_arm() -> None:
    """Two arms in small, six in all, each with 30 users; 50 titles for all of them."""
    stage = Stage(lambda sizes: sizes["titles"] + 2 * (3 + sizes["users"]))
    axes = [Axis("titles", 0, 8, once=True, limit=50), Axis("users", 1, 4, limit=30)]
    assert scaled(stage, axes, arms=6 / 2)[0][0] == pytest.approx(100 + 50 - 1 + 6 * (3 + 30), abs=3)
    stage = Stage(lambda sizes: 2 * (3 + sizes["users"]))
    assert scaled(stage, axes[1:], arms=0.0)[0][0] == pytest.approx(100)  # all of them are there


def test_a_stage_that_nothing_makes_larger_takes_what_its_small_run_took() -> None:
    stage = Stage(lambda _sizes: 3.0)
    assert scaled(stage, [])[0][0] == 103
    assert scaled(Stage(lambda sizes: 5.0 - sizes["a"]), [Axis("a", limit=3)])[0][0] == 104


@pytest.mark.parametrize("solver", ["cg", "arnoldi", "lissa"])
@pytest.mark.parametrize("recommender", ["bigrec", "tiger"])
def test_every_axis_of_the_table_is_of_some_run(solver: str, recommender: str) -> None:
    stopping = {"patience": 1}
    content = {"data": {"warm_share": 0.5}, "finetune": stopping, "warmstart": stopping, "recommender": recommender}
    config = Config.model_validate({**content, "influence": {"solver": {"kind": solver}}})
    every = declared(config, beside=STAGE_NAMES)
    assert {*SCALES, *ARMS} <= {stage.name for stage in every}
    for stage in every:
        names = [axis.name for axis in axes_of(stage, config, COUNTS)]
        missing = [axis.name for axis in SCALES.get(stage.name, ()) if not fnmatch.filter(names, axis.name)]
        assert len(missing) == (2 if stage.name == "influence" else 0)  # of the other solvers


def amounts(stage: str, content: dict[str, Any], shards: tuple[str, ...] = ()) -> dict[str, tuple[Any, ...]]:
    declaration = next(declaration for declaration in STAGES if declaration.name == stage)
    axes = axes_of(declaration, Config.model_validate(content), COUNTS, shards=shards)
    return {axis.name: (axis.limit, axis.total, axis.most) for axis in axes}


def test_the_amounts_are_those_of_hand_arithmetic() -> None:
    assert amounts("surrogate", {"surrogate": {"max_epochs": 9}}) == {
        UNITS: (1000, None, None),
        "surrogate.max_epochs": (9, 9, 9),
    }
    cg, lissa = {"kind": "cg", "max_iter": 50}, {"kind": "lissa", "depth": 30, "repeats": 2}
    assert amounts("influence", {"influence": {"solver": cg}})["influence.solver.max_iter"] == (50, 15, 50)
    assert amounts("influence", {"influence": {"solver": lissa}})["influence.solver.depth"] == (30, 60, None)
    assert amounts("effort", {"effort": {"pool": 0.1}}) == {"candidates": (100, None, None)}
    assert amounts("effort", {"effort": {"pool": 100, "shard_size": 30}}, ("0.parquet", "3.tmp", "x.json")) == {
        "candidates": (70, None, None)
    }
    # 60 samples for 3 epochs, measured in epochs over 8; of 90 validation samples 50 are drawn, after every epoch
    content = {"select": {"budget": 60}, "finetune": {"epochs": 3, "patience": 2, "validation_samples": 50}}
    of_training = 3 * 60 / 8
    assert amounts("finetune", content) == {
        "finetune.epochs": (23, of_training, of_training),
        "finetune.validation_samples": (50, 50 * 3, None),
    }
    assert amounts("evaluate", {"evaluate": {"loss_users": None, "ranking_users": 70}}) == {
        TITLES: (3000, None, None),
        "evaluate.loss_users": (800, None, None),
        "evaluate.ranking_users": (70, None, None),
    }


def test_a_recommender_is_asked_by_its_own_settings_alone() -> None:
    warm = {"data": {"warm_share": 0.5}}
    tiger = {"max_epochs": 7, "codes": {"epochs": 5}, "validation_samples": 20}
    assert amounts("warmstart", {**warm, "recommender": "tiger", "tiger": tiger}) == {
        TITLES: (3000, None, None),
        WARM: (500, None, None),
        "tiger.codes.epochs": (5, 5, None),
        "tiger.max_epochs": (7, 7, 7),
        "tiger.validation_samples": (20, 20 * 7, None),
    }
    assert amounts("warmstart", {**warm, "warmstart": {"epochs": 4}}).keys() == {TITLES, WARM, "warmstart.epochs"}


def test_beginnings_are_spread_evenly() -> None:
    assert sorted(spread(100)) == list(range(100))
    for size in (1, 4, 10, 30):
        mean = sum(spread(100)[:size]) / size
        assert abs(mean - 49.5) < 50 / size


def test_some_rows_are_blocks_of_like_length() -> None:
    samples = pl.DataFrame({"sample_id": range(100), "history": [[1] * (i % 25) for i in range(100)]})
    some = some_rows(samples, 0.2, block=4)
    lengths = some["history"].list.len().value_counts()
    assert set(lengths["count"]) == {4}  # each length occurs four times
    assert len(some) == 20
    assert some_rows(samples, 1.0, block=4).equals(samples)


def test_a_cut_keeps_the_lengths_of_histories_and_reads_few_titles(write_config: Write, tmp_path: Path) -> None:
    config = load(write_config(data={"warm_share": 0.5}))
    run(config, tmp_path / "run", stages_until(config, "data"), progress=Silent())
    whole, cut = tmp_path / "run" / "data", tmp_path / "cut"
    test = pl.read_parquet(whole / "interactions-test.parquet")
    unknown = test.head(1).with_columns(pl.lit(999, test.schema["item_id"]).alias("item_id"))
    pl.concat([test, unknown]).write_parquet(whole / "interactions-test.parquet")
    write_cut(whole, cut, shares={"samples-warm": 0.5}, titles=12, occurring=5)
    assert pl.read_parquet(cut / "interactions-test.parquet")["item_id"].to_list()[-1] == 999  # of no catalogue
    items = pl.read_parquet(cut / "items.parquet")
    assert items["item_index"].to_list() == list(range(1, 13))
    for part in ("train", "valid", "test", "warm"):
        few, before = (pl.read_parquet(folder / f"samples-{part}.parquet") for folder in (cut, whole))
        assert len(few) == (round(len(before) / 2) if part == "warm" else len(before))
        occurring = {*few["target"], *few["history"].explode().drop_nulls()}
        assert occurring <= set(items["item_id"].head(5))
        same = before.join(few, on="sample_id", how="semi").sort("sample_id")
        assert few["history"].list.len().to_list() == same["history"].list.len().to_list()
    for part in ("train", "valid"):  # every user has had something, and nobody everything
        few, before = (pl.read_parquet(folder / f"interactions-{part}.parquet") for folder in (cut, whole))
        assert few.drop("item_id").equals(before.drop("item_id"))
        assert set(few["item_id"]) <= set(items["item_id"].head(2))
        assert few.schema == before.schema
