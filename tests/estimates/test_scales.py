"""From small runs to the whole, by hand arithmetic: the scaling, the table of what costs grow with, the small data."""

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
from dealrec.estimates.piece import OCCURRING, some_rows, write_with_titles
from dealrec.estimates.scales import SCALES, Axis, Work, scaled, work_of
from dealrec.stages import STAGE_NAMES
from dealrec.stages.pipeline import stages as declared
from dealrec.stages.pipeline import stages_until
from tests.conftest import made_interactions, made_items

Write = Callable[..., Path]
Seconds = Callable[[Mapping[str, int]], float]


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
    cost = scaled(stage, Work([Axis("a", 2, whole=40), Axis("b", 1, whole=30)]))
    assert stage.sizes == [{"a": 2, "b": 1}] * 2 + [{"a": 8, "b": 1}, {"a": 2, "b": 4}]
    whole = 100 + 5 + 0.5 * 40 + 3 * 30
    assert (cost.wall_seconds, cost.cpu_seconds) == pytest.approx((whole, 2 * whole))
    assert cost.peak_memory_bytes == 40


def test_an_axis_grows_until_it_shows_and_not_beyond_the_run() -> None:
    """A thousandth of a second is not to be seen at 4 x 2 and 16 x 2; then the run itself is done, or 64 x 2."""
    for whole, larger in ((100, [8, 32, 100]), (10**6, [8, 32, 128])):
        stage = Stage(lambda sizes: 1 + 0.001 * sizes["a"])
        assert seconds(stage, Axis("a", 2, whole=whole)) == pytest.approx(101 + 0.001 * whole)
        assert [sizes["a"] for sizes in stage.sizes] == [2, 2, *larger]


def test_what_is_gone_through_several_times_counts_as_often() -> None:
    """7 epochs over 80 units, of which 8 are tried for one."""
    stage = Stage(lambda sizes: 4 + 1.5 * sizes["units"])
    assert seconds(stage, Axis("units", 2, whole=80, times=7)) == pytest.approx(100 + 4 + 1.5 * 80 * 7)


def test_data_that_are_few_are_gone_through_more_often() -> None:
    """10 units can be seen no slower than once; 100 epochs of them can."""
    stage = Stage(lambda sizes: 4 + 0.01 * sizes["units"] * sizes.get("some.epochs", 1))
    axis = Axis("units", 192, whole=10, per="some.epochs", times=100)
    assert seconds(stage, axis) == pytest.approx(100 + 4 + 0.01 * 10 * 100)
    assert stage.sizes == [{"units": 10}] * 2 + [{"units": 10, "some.epochs": 77}]


def test_everything_but_what_is_done_once_is_done_for_each_arm() -> None:
    """Two arms in small, six in all, each with 30 users; 50 titles for all of them."""
    stage = Stage(lambda sizes: sizes["titles"] + 2 * (3 + sizes["users"]))
    axes = [Axis("titles", 2, once=True, whole=50), Axis("users", 1, whole=30)]
    once_more = 2 * 2  # titles of the smallest run, which is repeated as a whole
    assert seconds(stage, *axes, repeats=6 / 2) == pytest.approx(100 + 50 + once_more + 6 * (3 + 30))
    stage = Stage(lambda sizes: 2 * (3 + sizes["users"]))
    assert seconds(stage, axes[1], repeats=0.0) == pytest.approx(100)  # all of them are there


def test_a_stage_that_nothing_makes_larger_takes_what_its_small_run_took() -> None:
    assert seconds(Stage(lambda _sizes: 3.0)) == 103
    assert seconds(Stage(lambda sizes: 5.0 - sizes["a"]), Axis("a", whole=3)) == 104


def seconds(stage: Stage, *axes: Axis, repeats: float = 1.0) -> float:
    return scaled(stage, Work([*axes], repeats=repeats)).wall_seconds


@pytest.fixture
def data(write_config: Write, tmp_path: Path) -> Path:
    """The data stage's folder, of 40 users, 40 of 30 titles, and some warm samples."""
    config = load(write_config(data={"split": "leave-last-out", "warm_share": 0.5}))
    run(config, tmp_path / "run", stages_until(config, "data"), progress=Silent())
    return tmp_path / "run" / "data"


def work(stage: str, content: dict[str, Any], data: Path, finished: tuple[str, ...] = ()) -> Work:
    config = Config.model_validate({"data": {"warm_share": 0.5}, **content})
    declaration = next(each for each in declared(config, beside=STAGE_NAMES) if each.name == stage)
    return work_of(declaration, config, data, finished=finished)


def amounts(*args: Any) -> dict[str, tuple[int, float]]:
    return {axis.name: (axis.whole, axis.times) for axis in work(*args).axes}


@pytest.mark.parametrize("solver", ["cg", "lissa"])
@pytest.mark.parametrize("recommender", ["bigrec", "tiger"])
def test_every_axis_of_the_table_is_of_some_run(data: Path, solver: str, recommender: str) -> None:
    stopping = {"patience": 1}
    content = {
        "recommender": recommender,
        "finetune": stopping,
        "warmstart": stopping,
        "evaluate": {"valid_samples": 3},
        "signals": {"tiger": {}} if recommender == "bigrec" else {"llm": {}},
    }
    for stage, axes in SCALES.items():
        names = amounts(stage, {**content, "influence": {"solver": {"kind": solver}}}, data)
        missing = [axis.name for axis in axes if not fnmatch.filter(names, axis.name)]
        assert missing == (["influence.solver.depth"] if (stage, solver) == ("influence", "cg") else [])


def test_the_amounts_are_those_of_hand_arithmetic(data: Path) -> None:
    n, valid, users, warm = (
        pl.read_parquet(data / f"samples-{part}.parquet").height for part in ("train", "valid", "test", "warm")
    )
    assert amounts("surrogate", {"surrogate": {"max_epochs": 9}}, data) == {"units": (n, 9)}
    solvers = {"kind": "cg", "max_iter": 50}, {"kind": "lissa", "depth": 30, "repeats": 2}
    cg, lissa = (work("influence", {"influence": {"solver": solver}}, data) for solver in solvers)
    assert (len(cg.axes), cg.repeats, cg.most) == (1, (18 + 15) / (18 + 1), (18 + 50) / (18 + 15))
    assert ((lissa.axes[1].whole, lissa.axes[1].times), lissa.most) == ((30, 2), None)
    assert amounts("effort", {"pool": {"size": 0.5}}, data) == {"samples": (int(n / 2), 1)}
    shards = ("0.parquet", "3.tmp", "x.json")
    content = {"pool": {"size": 10}, "effort": {"shard_size": 3}}
    assert amounts("effort", content, data, shards) == {"samples": (7, 1)}
    content = {"select": {"budget": 6}, "finetune": {"epochs": 3, "patience": 2, "validation_samples": 5}}
    assert amounts("finetune", content, data) == {"samples": (6, 3), "finetune.validation_samples": (5, 3)}
    assert amounts("evaluate", {"evaluate": {"loss_users": None, "ranking_users": 7}}, data) == {
        "titles": (30, 1),
        "evaluate.loss_users": (users, 1),
        "evaluate.ranking_users": (7, 1),
    }
    tiger = {"max_epochs": 7, "codes": {"epochs": 5}, "validation_samples": 20}
    assert amounts("warmstart", {"recommender": "tiger", "tiger": tiger}, data) == {
        "titles": (30, 1),
        "samples": (warm, 7),
        "tiger.validation_samples": (min(20, valid), 7),
    }
    assert amounts("warmstart", {"warmstart": {"epochs": 4, "samples": 3}}, data) == {
        "titles": (30, 1),
        "samples": (3, 4),
    }


def test_an_arm_counts_by_its_samples_and_not_where_it_is_there(data: Path) -> None:
    content = {"select": {"budget": 5, "arms": {"double": {"method": "random", "budget": 10}}}}
    assert work("finetune", content, data).repeats == 1 + 1 + 2  # selected, random, double
    assert work("finetune", content, data, ("selected", "double")).repeats == 1
    assert work("evaluate", content, data).repeats == 4 / 2  # with base; a small run has two


def test_some_rows_are_blocks_of_like_length() -> None:
    samples = pl.DataFrame({"sample_id": range(100), "history": [[1] * (i % 25) for i in range(100)]})
    some = some_rows(samples, 20, block=4)
    assert len(some) == 20
    assert abs(some["history"].list.len().mean() - 12) <= 1  # type: ignore[operator]
    assert len(some_rows(samples, 1)) == 1
    assert some_rows(samples, 100, block=4).equals(samples)


def test_with_few_titles_histories_keep_their_lengths(write_config: Write, tmp_path: Path) -> None:
    config = load(write_config(data={"split": "leave-last-out", "warm_share": 0.5}))
    made_interactions(users=80, items=200).write_parquet(tmp_path / "interactions.parquet")
    made_items(items=200).write_parquet(tmp_path / "items.parquet")
    run(config, tmp_path / "run", stages_until(config, "data"), progress=Silent())
    whole, cuts = tmp_path / "run" / "data", {titles: tmp_path / str(titles) for titles in (64, 128, 300)}
    for titles, cut in cuts.items():
        write_with_titles(whole, cut, titles)
    items = {titles: pl.read_parquet(cut / "items.parquet") for titles, cut in cuts.items()}
    assert [len(table) for table in items.values()] == [64, 128, 200]
    assert items[64]["item_index"].to_list() == list(range(1, 65))
    for part in ("train", "valid", "test", "warm"):
        few, before = (pl.read_parquet(folder / f"samples-{part}.parquet") for folder in (cuts[64], whole))
        occurring = {*few["target"], *few["history"].explode().drop_nulls()}
        assert len(occurring) <= OCCURRING
        assert all(occurring <= set(table["item_id"]) for table in items.values())
        assert few["sample_id"].equals(before["sample_id"])
        assert few["history"].list.len().equals(before["history"].list.len())
    for part in ("train", "valid", "test"):
        few, before = (pl.read_parquet(folder / f"interactions-{part}.parquet") for folder in (cuts[64], whole))
        assert few.drop("item_id").equals(before.drop("item_id"))
        assert few["item_id"].n_unique() <= OCCURRING
        assert few.schema == before.schema
