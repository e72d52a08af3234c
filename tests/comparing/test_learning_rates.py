"""One learning rate a budget, by Random's loss on validation samples."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dealrec.comparing.learning_rates import FOLDER, Tuned, sentences, tuning_config, with_rates
from dealrec.comparing.outcome import compare
from dealrec.comparing.replicates import replicate_config
from dealrec.config.arms import arms, fine_tunings
from dealrec.config.files import load
from dealrec.engine.stage import Silent
from dealrec.stages.recommenders import training
from tests.conftest import write_small_config

RATES = [0.0001, 0.05]
SETTINGS: dict[str, Any] = {
    "select": {"method": "most-recent", "budget": 6},
    "compare": {"methods": ["validation"], "replicates": 2, "random_sizes": [1, 2], "learning_rates": RATES},
}


def test_random_of_each_size_is_tried_at_each_rate_and_nothing_else(tmp_path: Path, tiny_llm: Path) -> None:
    config = load(write_small_config(tmp_path, tiny_llm, **SETTINGS))
    tried = tuning_config(config)
    assert tried.replicate == 2  # no replicate of the comparison
    rates = [(arm.method, arm.budget, arm.learning_rate) for arm in arms(tried).values() if arm.learning_rate]
    assert sorted(rates) == [("random", size, rate) for size in (6, 12) for rate in RATES]


def test_every_arm_of_a_size_gets_its_rate(tmp_path: Path, tiny_llm: Path) -> None:
    config = replicate_config(load(write_small_config(tmp_path, tiny_llm, **SETTINGS)), 0)
    found = with_rates(config, [Tuned(6, {0.1: 2.0, 0.2: 1.0}), Tuned(12, {0.1: 1.0, 0.2: 2.0})])
    rates = {tuning.arm: tuning.learning_rate for tuning in fine_tunings(found)}
    assert rates == {"selected": 0.2, "random-x1": 0.2, "random-x2": 0.1, "validation": 0.2}
    assert found.finetune == config.finetune  # which signals are tuned by
    assert {tuning.learning_rate for tuning in fine_tunings(config)} == {None}


def test_an_end_of_the_rates_is_told() -> None:
    middle, end = Tuned(6, {0.1: 2.0, 0.2: 1.0, 0.3: 2.0}), Tuned(12, {0.1: 1.0, 0.2: 1.0})
    assert (middle.rate, middle.at_an_end, end.rate, end.at_an_end) == (0.2, False, 0.1, True)
    assert sentences([middle, end]) == [
        "Learning rates, by Random's loss on validation samples: 0.2 at 6, 0.1 at 12.",
        "At 12 the lowest loss was at an end of compare.learning_rates: one beyond may be better.",
    ]


@pytest.mark.slow
def test_a_comparison_tries_the_rates_once_and_trains_at_the_best(
    tmp_path: Path, tiny_llm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[str, float]] = []
    train = training.train_on

    def watched(context: Any, name: str, *rest: Any, **options: Any) -> None:
        trained.append((name, options["settings"].learning_rate))
        train(context, name, *rest, **options)

    monkeypatch.setattr("dealrec.stages.finetune.train_on", watched)
    config = load(write_small_config(tmp_path, tiny_llm, **SETTINGS))
    outcome = compare(config, tmp_path / "run", progress=Silent())
    of_size = {each.budget: each for each in outcome.rates}
    for size in (6, 12):
        for rate in RATES:
            cell = tmp_path / "run" / FOLDER / "evaluate" / f"random@{size}-{rate:g}"
            table = pl.read_parquet(cell / "valid.parquet")
            assert of_size[size].losses[rate] == pytest.approx(table["loss"].mean())
        assert of_size[size].rate == min(RATES, key=lambda rate: of_size[size].losses[rate])
    cells = [(name, rate) for name, rate in trained if "@" not in name and name != "selected"]
    assert set(cells) == {
        *((name, of_size[6].rate) for name in ("random-x1", "validation")),
        ("random-x2", of_size[12].rate),
    }
    content = json.loads((tmp_path / "run" / "comparison.json").read_text())
    assert [row["learning_rate"] for row in content["learning_rates"]] == [each.rate for each in outcome.rates]
    assert "Learning rates, by Random" in outcome.page.read_text()
    count = len(trained)
    compare(config, tmp_path / "run", progress=Silent())
    assert len(trained) == count
