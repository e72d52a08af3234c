"""Signals that another recommender is asked for than the one that is fine-tuned."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dealrec.comparing.cells import cost_seconds
from dealrec.config import Config
from dealrec.config.files import load, parse
from dealrec.engine.manifest import read_manifest
from dealrec.engine.runner import run
from dealrec.engine.stage import Silent
from dealrec.errors import ConfigError, DealrecError
from dealrec.estimates import estimate
from dealrec.stages.pipeline import stages, stages_until
from tests.stages.test_recommenders import SMALL_TIGER

Write = Callable[..., Path]
SECTIONS: dict[str, Any] = {
    "data": {"warm_share": 0.5},
    "select": {"method": "loss-drop", "budget": 4},
    "pool": {"size": 12, "method": "random"},
    "warmstart": {"samples": 4},
}


def up_to(path: Path, run_dir: Path, until: str, *overrides: str) -> Config:
    config = load(path, overrides)
    run(config, run_dir, stages_until(config, until), progress=Silent())
    return config


def ran(path: Path, run_dir: Path, override: str) -> set[str]:
    config = load(path, [override])
    outcomes = run(config, run_dir, stages_until(config, "select"), progress=Silent())
    return {outcome.stage for outcome in outcomes if outcome.ran}


@pytest.mark.slow
def test_they_are_those_that_its_own_run_has(write_config: Write, tmp_path: Path, text_encoder: Path) -> None:
    """An LLM whose samples TIGER scores, and TIGER itself; then what outdates what."""
    tiger = {**SMALL_TIGER, "text_encoder": str(text_encoder)}
    path = write_config(**SECTIONS, signals={"tiger": tiger})
    config, run_dir = up_to(path, tmp_path / "llm", "finetune"), tmp_path / "llm"
    up_to(write_config(**SECTIONS, recommender="tiger", tiger=tiger), tmp_path / "tiger", "select")
    scores = [pl.read_parquet(folder / "loss_drop/scores.parquet") for folder in (run_dir, tmp_path / "tiger")]
    assert scores[0].equals(scores[1])
    assert [stage.name for stage in stages(config)][:5] == ["data", "warmstart", "pool", "signal_warmstart", "loss"]
    assert (run_dir / "signal_warmstart/model").is_dir()
    assert list((run_dir / "finetune/selected").glob("adapter_model*")), "what is fine-tuned is the LLM"
    path = write_config(**SECTIONS, signals={"tiger": tiger})
    manifests = {name: read_manifest(run_dir / name) for name in ("signal_warmstart", "loss", "loss_drop", "pool")}
    costs = sum(manifest.cpu_seconds for manifest in manifests.values() if manifest is not None)
    assert cost_seconds(config, run_dir, "selected") == pytest.approx(costs), "its warm start is a part of the price"
    assert ran(path, run_dir, "llm.lora.r=3") == {"warmstart"}
    assert ran(path, run_dir, "signals.tiger.max_items=3") >= {"signal_warmstart", "loss", "loss_drop"}


@pytest.mark.slow
def test_another_llm_has_its_own_warm_start(write_config: Write, tmp_path: Path, tiny_llm: Path) -> None:
    same = {"model": str(tiny_llm), "lora": {"r": 2}, "prompt": {"max_items": 3}}
    drops = []
    for name, other in {"same": same, "other": {**same, "lora": {"r": 3}}}.items():
        path = write_config(**SECTIONS, signals={"llm": other})
        up_to(path, tmp_path / name, "select")
        drops.append(pl.read_parquet(tmp_path / name / "loss_drop/scores.parquet"))
    up_to(write_config(**SECTIONS), tmp_path / "own", "select")
    own = pl.read_parquet(tmp_path / "own" / "loss_drop/scores.parquet")
    assert drops[0].equals(own)
    assert not drops[1].equals(own)


@pytest.mark.slow
def test_what_they_take_is_estimated(write_config: Write, tmp_path: Path, text_encoder: Path) -> None:
    tiger = {**SMALL_TIGER, "text_encoder": str(text_encoder), "max_epochs": 7}
    path = write_config(**SECTIONS, signals={"tiger": tiger})
    estimates = {stage.stage: stage for stage in estimate(load(path), tmp_path / "run").stages}
    assert estimates["signal_warmstart"].seconds
    assert estimates["signal_warmstart"].figures["epochs_at_most"] == 7
    assert estimates["loss_drop"].seconds
    assert "epochs_at_most" not in estimates["warmstart"].figures


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"signals": {"llm": {}, "tiger": {}}}, "exclude each other"),
        ({"signals": {"tiger": {}}}, "learnt nothing without a warm start"),
        (
            {"signals": {"llm": {"adapter": "/a"}}, "finetune": {"full": True}},
            r"Signals: finetune\.full cannot go on from llm\.adapter",
        ),
        ({"signals": {"llm": {"modle": "x"}}}, r"Did you mean signals\.llm\.model\?"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(settings, base=Path())


def test_a_model_that_is_not_there_is_found_after_the_data(write_config: Write, tmp_path: Path) -> None:
    path = write_config(**SECTIONS, signals={"llm": {"model": str(tmp_path / "nowhere")}})
    with pytest.raises(DealrecError, match="nowhere"):
        up_to(path, tmp_path / "run", "select")
    assert not (tmp_path / "run" / "warmstart").exists()


def test_a_path_is_relative_to_the_config(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    config = parse({"signals": {"llm": {"model": "./small"}}}, base=tmp_path)
    assert config.signals.llm is not None
    assert config.signals.llm.model == str((tmp_path / "small").resolve())
