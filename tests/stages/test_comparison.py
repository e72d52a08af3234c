"""`comparison.json` from tables made by hand: what is averaged, what the intervals cover, and how that is said."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from dealrec.comparing.results import _verdict
from dealrec.config import Config
from dealrec.config.arms import fine_tunings
from dealrec.engine.stage import Context, Silent
from dealrec.reporting.results import _row
from dealrec.stages import compare

LOSSES = {
    "base": [4.0, 4, 4],
    "selected": [1.0, 2, 3],
    "selected+1": [2.0, 3, 4],
    "selected-1": [1.0, 1, 1],
    "selected-1+1": [3.0, 3, 3],
    "random-0": [2.0, 2, 5],
    "random-0+1": [2.0, 4, 6],
    "random-1": [0.0, 1, 5],
    "random-1+1": [4.0, 5, 3],
}


def settings(selections: int, random_arms: int, seeds: int, **evaluate: Any) -> Config:
    return Config.model_validate(
        {
            "select": {"selections": selections, "random_arms": random_arms},
            "finetune": {"seeds": seeds},
            "evaluate": {"ks": [5], "resamples": 100, **evaluate},
        }
    )


def compared(folder: Path, config: Config, losses: Mapping[str, list[float]]) -> dict[str, Any]:
    """Tables of users a, b and so on, the last of whom nothing is recommended to, written in another order for each."""
    for place, (name, values) in enumerate(losses.items()):
        hits = [*(float((place + user) % 2) for user in range(len(values) - 1)), None]
        users = [chr(ord("a") + user) for user in range(len(values))]
        table = pl.DataFrame(
            {"user_id": users, "loss": values, **{f"{name}@5": hits for name in ("recall", "ndcg", "mrr")}}
        )
        (folder / "evaluate" / name).mkdir(parents=True)
        table.sample(fraction=1, shuffle=True, seed=place).write_parquet(
            folder / "evaluate" / name / "per_user.parquet"
        )
        (folder / "evaluate" / name / "metrics.json").write_text(
            json.dumps({"catalogue": {"coverage@5": float(place)}})
        )
    compare.STAGE.run(Context("compare", config, Silent(), folder, folder, compare.STAGE.inputs))
    found: dict[str, Any] = json.loads((folder / "comparison.json").read_text())
    return found


def test_two_of_everything_by_hand(tmp_path: Path) -> None:
    found = compared(tmp_path, settings(2, 2, 2), LOSSES)
    assert {kind: arm["runs"] for kind, arm in found["arms"].items()} == {
        "base": ["base"],
        "selected": ["selected", "selected+1", "selected-1", "selected-1+1"],
        "random": ["random-0", "random-0+1", "random-1", "random-1+1"],
    }
    assert found["arms"]["base"]["metrics"]["loss"]["mean"] == 4
    assert found["arms"]["selected"]["metrics"]["loss"]["mean"] == pytest.approx((6 + 9 + 3 + 9) / 12)
    assert found["arms"]["random"]["metrics"]["loss"]["mean"] == pytest.approx((9 + 12 + 6 + 12) / 12)
    assert found["arms"]["base"]["catalogue"] == {"coverage@5": 0}
    assert found["arms"]["selected"]["catalogue"] == {"coverage@5": (1 + 2 + 3 + 4) / 4}
    loss, recall = found["measures"]["loss"], found["measures"]["recall@5"]
    assert (loss["mean"], loss["n"], recall["n"]) == (-1, 3, 2)
    assert loss["covers"] == ["selection seeds", "training seeds", "users"]
    assert loss["low"] < -1 < loss["high"]
    assert loss["p"]["users"] == {"p": 0.25, "exact": True, "least": 0.25}
    assert loss["p"]["arms"]["p"] == pytest.approx(1 / 3)
    said = " ".join(found["notes"])
    assert "verdicts, cover selection seeds, training seeds and users." in said
    assert "They hold for" not in said
    assert "not the weights it starts from" in said
    assert "Too few users differ for p (users) to be as low as 0.05 on any measure." in said
    assert "any 2 of the 4 arms" in said
    assert "it cannot be below 0.33" in said


@pytest.mark.parametrize(
    ("design", "covers", "held"),
    [
        ((1, 1, 1), "users alone", "one selection, one random arm and one training of each arm"),
        ((1, 3, 1), "users alone", "one selection, the mean of 3 random arms and one training of each arm"),
        ((1, 1, 2), "training seeds and users", "one selection and one random arm"),
        ((2, 2, 1), "selection seeds and users", "one training of each arm"),
        ((3, 1, 1), "selection seeds and users", "one random arm and one training of each arm"),
        ((2, 3, 2), "selection seeds, training seeds and users", "the mean of 3 random arms"),
    ],
    ids=str,
)
def test_what_the_intervals_leave_out_is_said(
    tmp_path: Path, design: tuple[int, int, int], covers: str, held: str
) -> None:
    config, draw = settings(*design), np.random.default_rng(0)
    names = ["base", *(one.name for one in fine_tunings(config))]
    assert len(names) == 1 + (design[0] + design[1]) * design[2]
    found = compared(tmp_path, config, {name: draw.normal(size=12).tolist() for name in names})
    said = " ".join(found["notes"])
    assert f"verdicts, cover {covers}." in said
    assert f"They hold for {held}: with other seeds" in said
    assert ("A selection seed" in said) == (design[0] > 1)
    assert ("raining seed changes" in said) == (design[2] > 1)
    assert ("p (arms)" in said) == (design[0] + design[1] > 2)
    assert (found["measures"]["loss"]["p"]["arms"] is None) == (design[0] + design[1] == 2)


def test_enough_arms_for_the_level_are_not_complained_of(tmp_path: Path) -> None:
    """Four against four: 2 of 70 choices are below 0.05. Three against three: 2 of 20 just reach 0.1."""
    draw = np.random.default_rng(0)
    for arms, confidence, enough in ((4, 0.95, True), (3, 0.9, True), (3, 0.95, False)):
        config = settings(arms, arms, 1, confidence=confidence)
        names = ["base", *(one.name for one in fine_tunings(config))]
        losses = {name: draw.normal(size=9).tolist() for name in names}
        found = compared(tmp_path / f"{arms}-{confidence}", config, losses)
        assert ("With so few arms" not in " ".join(found["notes"])) == enough


def test_one_user_that_is_ranked_for_has_an_interval_over_seeds_alone(tmp_path: Path) -> None:
    losses = {name: values[:2] for name, values in LOSSES.items()}
    found = compared(tmp_path, settings(2, 2, 2), losses)
    assert found["measures"]["recall@5"]["covers"] == ["selection seeds", "training seeds"]
    said = found["notes"][0]
    assert "selection seeds, training seeds and users (on loss); selection seeds and training seeds (on" in said


def test_without_random_arms_there_is_nothing_to_compare(tmp_path: Path) -> None:
    found = compared(tmp_path, settings(2, 0, 2), {k: v for k, v in LOSSES.items() if not k.startswith("random")})
    assert (found["measures"], found["notes"], list(found["arms"])) == ({}, [], ["base", "selected"])
    assert found["arms"]["selected"]["metrics"]["loss"]["covers"] == ["selection seeds", "training seeds", "users"]


@pytest.mark.parametrize(
    ("measure", "better"), [("loss", "selected"), ("log_rank", "selected"), ("recall@5", "random")]
)
def test_of_losses_and_ranks_the_lower_is_the_better(tmp_path: Path, measure: str, better: str) -> None:
    config = settings(2, 2, 1, log_rank=True)
    names = [measure, *({"loss", "log_rank", "recall@5", "ndcg@5", "mrr@5"} - {measure})]
    for number, name in enumerate(["base", "selected", "selected-1", "random-0", "random-1"]):
        values = [0.1 * user + (1.0 + 0.01 * number if name.startswith("random") else 0.0) for user in range(6)]
        (tmp_path / "evaluate" / name).mkdir(parents=True)
        table = pl.DataFrame({"user_id": range(6), **dict.fromkeys(names, values)})
        table.write_parquet(tmp_path / "evaluate" / name / "per_user.parquet")
        (tmp_path / "evaluate" / name / "metrics.json").write_text(json.dumps({"catalogue": {}}))
    compare.STAGE.run(Context("compare", config, Silent(), tmp_path, tmp_path, compare.STAGE.inputs))
    found = json.loads((tmp_path / "comparison.json").read_text())["measures"][measure]
    assert found["verdict"] == ("better" if better == "selected" else "worse")
    of_methods = _verdict(found["mean"], 0.001, measure, confidence=0.95)
    assert of_methods == found["verdict"]
    row = _row(measure, [{measure: {"mean": 1.0, "low": None, "high": None, "n": 6}}], None)
    assert row.better == ("lower is better" if better == "selected" else "higher is better")
