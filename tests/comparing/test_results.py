"""Results by hand: cells of known losses."""

import re
from pathlib import Path

import polars as pl
import pytest

from dealrec.comparing import cells as cells_module
from dealrec.comparing.cells import Cell, cost_seconds
from dealrec.comparing.replicates import replicate_config
from dealrec.comparing.results import Results, Statistics, results_of
from dealrec.comparing.segments import segments_of
from dealrec.comparing.words import curve_note, sentence
from dealrec.config import Config

LOSSES = {"random-x1": 3.0, "random-x4": 2.0, "selected": 2.5}  # half way between Random's two
SIZES = {"random-x1": (100, 200), "random-x4": (400, 3200), "selected": (100, 50)}  # samples, label tokens


def results(folder: Path, *, replicates: int = 2) -> Results:
    cells = []
    for arm, loss in LOSSES.items():
        for replicate in range(replicates):
            path = folder / arm / str(replicate)
            path.mkdir(parents=True)
            shift = 0.01 * (-1) ** replicate * (arm == "selected")  # replicates differ, and their mean does not
            users = {"user_id": [1, 2, 3], "loss": [loss - 0.5 + 2 * shift, loss + shift, loss + 0.5]}
            pl.DataFrame(users).write_parquet(path / "per_user.parquet")
            cells.append(Cell(arm, re.split("[-@]", arm)[0], replicate, 0, SIZES[arm][0], *SIZES[arm], path))
    return results_of(
        cells,
        base=[pl.DataFrame({"user_id": [1, 2, 3], "loss": [3.0, 4.0, 5.0]})] * replicates,
        measures=["loss"],
        costs={},
        segments=pl.DataFrame(schema={"user_id": pl.Int64, "segment": pl.String}),
        statistics=Statistics(0.95, 200, 0),
    )


def test_an_arm_is_worth_samples_and_label_tokens_each_on_its_own_axis(tmp_path: Path) -> None:
    (arm,) = results(tmp_path).arms
    assert arm.equivalent.point.samples == pytest.approx((100 * 400) ** 0.5)
    assert arm.token_equivalent.point.samples == pytest.approx((200 * 3200) ** 0.5)
    assert arm.token_equivalent.low is not None


def test_one_replicate_gives_no_interval_on_either_axis(tmp_path: Path) -> None:
    (arm,) = results(tmp_path, replicates=1).arms
    assert arm.equivalent.low is None
    assert arm.token_equivalent.low is None


def test_random_arms_of_as_many_tokens_are_one_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "random-x4", (400, 200))
    (arm,) = results(tmp_path).arms
    assert arm.token_equivalent.point.bound == "above"


def test_a_curve_that_does_not_fall_is_said_beside_the_equivalents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fallen = results(tmp_path / "fallen")
    assert fallen.base == 4.0
    assert curve_note(fallen) is None
    monkeypatch.setitem(LOSSES, "random-x4", 3.5)
    risen = curve_note(results(tmp_path / "risen"))
    assert risen is not None
    assert "no fine-tuning" not in risen
    monkeypatch.setitem(LOSSES, "random-x1", 4.1)
    monkeypatch.setitem(LOSSES, "random-x4", 4.2)
    assert "worse than no fine-tuning" in str(curve_note(results(tmp_path / "worse")))


def test_the_headline_is_of_the_run_s_own_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSSES, "random@50", 3.2)
    monkeypatch.setitem(SIZES, "random@50", (50, 25))
    monkeypatch.setitem(LOSSES, "selected@50", 1.0)  # better, and of another budget
    monkeypatch.setitem(SIZES, "selected@50", (50, 25))
    both = results(tmp_path)
    assert [arm.arm for arm in both.arms] == ["selected@50", "selected"]
    assert both.headline is both.arms[1]


def test_a_worth_outside_of_what_was_measured_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSSES, "selected", 1.0)
    above = results(tmp_path / "above")
    assert sentence(above.arms[0], above).startswith("100 by selected are worth more than 4 times as many random ones,")
    monkeypatch.setitem(LOSSES, "selected", 9.0)
    below = results(tmp_path / "below")
    assert sentence(below.arms[0], below).startswith("100 by selected are worth fewer than 100 random ones,")


@pytest.mark.parametrize(
    ("lengths", "histories"), [([1, 1, 2, 2], {"short histories", "long histories"}), ([2] * 4, set())]
)
def test_what_holds_for_all_users_is_no_segment(tmp_path: Path, lengths: list[int], histories: set[str]) -> None:
    (tmp_path / "data").mkdir()
    items = {"item_id": [1, 2, 3], "train_count": [9, 1, 0]}  # of the three with any, the one in the middle has 9
    pl.DataFrame(items).write_parquet(tmp_path / "data/items.parquet")
    samples = {"user_id": [1, 2, 3, 4], "history": [[1] * n for n in lengths], "target": [1, 2, 3, 1]}
    pl.DataFrame(samples).write_parquet(tmp_path / "data/samples-test.parquet")
    found = segments_of(tmp_path)
    assert set(found["segment"]) == {"rare targets", "cold targets"} | histories


def test_the_signals_of_an_option_are_a_part_of_the_price(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clustered = {"method": "surrogate-loss-drop", "options": {"spread": "cluster-quota"}}
    settings = {"select": {"method": "surrogate-loss-drop"}, "compare": {"methods": [clustered]}}
    config, read = replicate_config(Config.model_validate(settings), 0), list[str]()
    monkeypatch.setattr(cells_module, "read_manifest", lambda folder: read.append(folder.name))
    cost_seconds(config, tmp_path, "selected")
    plain = set(read)
    cost_seconds(config, tmp_path, "surrogate-loss-drop-spread-cluster-quota")
    assert set(read) - plain == {"title_embedding", "target_cluster"}
    assert "surrogate_loss_drop" in plain


@pytest.mark.parametrize(
    ("budget", "random", "together"),
    [
        ((0.3, 30), (0.1 * 3, 30), True),  # rounding
        ((2500, 12), (2500, 17), True),  # tokens, of which the samples have more or fewer
        ((1000, 30), (0.1, 30), True),  # a count and a share that come to the same
        ((1, 1), (1.0, 300), False),
        ((0.1, 30), (0.2, 60), False),
    ],
)
def test_arms_stand_beside_random_of_their_budget(
    budget: tuple[int | float, int], random: tuple[int | float, int], together: bool, tmp_path: Path
) -> None:
    cells = []
    for arm, (of, size) in (("selected", budget), ("random-x1", random)):
        path = tmp_path / arm
        path.mkdir()
        pl.DataFrame({"user_id": [1, 2], "loss": [2.0, 3.0]}).write_parquet(path / "per_user.parquet")
        cells.append(Cell(arm, arm.partition("-")[0], 0, 0, of, size, 9, path))
    outcome = results_of(
        cells,
        base=[pl.DataFrame({"user_id": [1, 2], "loss": [3.0, 4.0]})],
        measures=["loss"],
        costs={},
        segments=pl.DataFrame(schema={"user_id": pl.Int64, "segment": pl.String}),
        statistics=Statistics(0.95, 200, 0),
    )
    assert [arm.arm for arm in outcome.arms] == ["selected"] * together
