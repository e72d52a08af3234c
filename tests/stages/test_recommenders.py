"""The pipeline with each recommender: warm starts, whole models, adapters to start from, effort free of length."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from dealrec.api.prune import prune
from dealrec.config import Config
from dealrec.config.files import load, parse
from dealrec.engine.runner import Outcome, run
from dealrec.engine.stage import Silent
from dealrec.errors import ConfigError, DealrecError
from dealrec.stages.pipeline import stages as declared
from tests.conftest import made_interactions, made_items

STAGES = declared(Config.model_validate({"select": {"method": "dealrec"}, "pool": {"method": "influence-strata"}}))

SMALL_TIGER: dict[str, Any] = {
    "codes": {"levels": 2, "codes": 4, "epochs": 5},
    "t5": {"d_model": 8, "heads": 2, "d_kv": 4, "d_ff": 8, "layers": 1},
    "max_epochs": 2,
    "batch_size": 32,
}
NAMES = [stage.name for stage in STAGES]


def go(path: Path, run_dir: Path, *, until: str = "report") -> list[Outcome]:
    return run(load(path), run_dir, STAGES[: NAMES.index(until) + 1], progress=Silent())


def metrics(run_dir: Path, arm: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / "evaluate" / arm / "metrics.json").read_text())
    return found


@pytest.mark.slow
def test_tiger_goes_through_the_whole_pipeline(
    write_config: Callable[..., Path], tmp_path: Path, text_encoder: Path
) -> None:
    path = write_config(
        recommender="tiger",
        tiger={**SMALL_TIGER, "text_encoder": str(text_encoder)},
        data={"warm_share": 0.5},
        effort={"pool": 12, "length_exponent": "fitted"},
        evaluate={"batch_size": 3, "log_rank": True},
    )
    outcomes = go(path, tmp_path / "run")
    data, warm = outcomes[0].manifest.facts, outcomes[3].manifest.facts
    assert 0 < data["train_samples"] < 40
    assert data["warm_samples"] > 0
    assert warm["epochs"] == 2
    times = pl.read_parquet(tmp_path / "run" / "data" / "interactions-train.parquet")
    cut = times["timestamp"].sort()[round(len(times) * 0.5)]
    lasts = times.sort("user_id", "position").group_by("user_id").agg(pl.col("timestamp").last(), pl.len())
    samples = pl.read_parquet(tmp_path / "run" / "data" / "samples-train.parquet")
    late = lasts.filter((pl.col("timestamp") >= cut) & (pl.col("len") > 1))
    assert set(samples["user_id"]) == set(late["user_id"])
    warm_items = pl.read_parquet(tmp_path / "run" / "data" / "samples-warm.parquet")
    early = times.filter(pl.col("timestamp") < cut).group_by("user_id").len().filter(pl.col("len") > 1)
    assert sorted(warm_items["user_id"]) == sorted(early["user_id"])
    lines = [json.loads(line) for line in (tmp_path / "run" / "export" / "train.jsonl").read_text().splitlines()]
    assert [set(line) for line in lines] == [{"input_ids", "labels"}] * 6
    assert {len(line["labels"]) for line in lines} == {3}
    base, selected = metrics(tmp_path / "run", "base"), metrics(tmp_path / "run", "selected")
    assert base["metrics"]["loss"]["mean"] != selected["metrics"]["loss"]["mean"]
    assert 0 < base["catalogue"]["coverage@5"] <= 1
    assert "mrr@5" in base["metrics"]
    assert base["metrics"]["log_rank"]["n"] == base["metrics"]["mrr@5"]["n"] == 4
    of_users = pl.read_parquet(tmp_path / "run" / "evaluate" / "base" / "per_user.parquet").filter(pl.col("mrr@5") > 0)
    assert of_users["log_rank"].to_list() == pytest.approx([-math.log(rr) for rr in of_users["mrr@5"]])
    written = pl.read_parquet(tmp_path / "run" / "evaluate" / "base" / "per_user.parquet")["generated"].drop_nulls()
    assert all(len(text.split()) == 3 for text in written)


@pytest.mark.slow
def test_no_result_of_tiger_depends_on_the_batch_size(
    write_config: Callable[..., Path], tmp_path: Path, text_encoder: Path
) -> None:
    found = []
    for size in (1, 4):
        path = write_config(
            recommender="tiger",
            tiger={**SMALL_TIGER, "text_encoder": str(text_encoder)},
            data={"warm_share": 0.5},
            select={"random_arms": 0},
            evaluate={"batch_size": size},
        )
        go(path, tmp_path / "run", until="evaluate")  # the earlier stages are up to date the second time
        found.append(pl.read_parquet(tmp_path / "run" / "evaluate" / "base" / "per_user.parquet"))
    assert (
        found[0]
        .select("user_id", "generated", "recall@5", "mrr@5")
        .equals(found[1].select("user_id", "generated", "recall@5", "mrr@5"))
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"recommender": "tiger"}, r"^Recommender 'tiger' has learnt nothing.*warm_share"),
        ({"finetune": {"full": True}, "llm": {"adapter": "/adapter"}}, "merge the adapter"),
        ({"data": {"format": "dealrec", "warm_share": 0.5}}, "have no times"),
        ({"effort": {"length_exponent": "banana"}}, r"effort\.length_exponent = .*number, or: .*'fitted'"),
        ({"finetune": {"checkpoint_every": 0}}, r"finetune\.checkpoint_every = 0: .*'epoch'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_in_one_line(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(settings, base=Path.cwd())


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"data": {"warm_share": 0.001}}, "warm_share"),
        ({"data": {"warm_share": 0.97, "split": "time"}, "select": {"budget": 30}}, r"after data\.warm_share"),
        ({"llm": {"adapter": "/nowhere"}}, r"adapter_config\.json"),
        ({"llm": {"quantization": "4bit"}}, r"llm\.quantization '4bit' needs"),  # a GPU and bitsandbytes
        ({"recommender": "tiger", "tiger": {"text_encoder": "/nowhere"}, "data": {"warm_share": 0.5}}, "text_encoder"),
    ],
)
def test_what_cannot_start_is_found_after_the_data_stage(
    write_config: Callable[..., Path], tmp_path: Path, sections: dict[str, Any], said: str
) -> None:
    with pytest.raises(DealrecError, match=said):
        go(write_config(**sections), tmp_path / "run")
    assert not (tmp_path / "run" / "surrogate").exists()


def test_users_whose_last_item_is_before_the_cut_are_not_called_short(
    write_config: Callable[..., Path], tmp_path: Path
) -> None:
    (outcome,) = go(write_config(data={"warm_share": 0.5}), tmp_path / "run", until="data")
    assert outcome.manifest.facts["users_too_short"] == 0
    assert not any("fewer than two" in text for text in outcome.manifest.warnings)


@pytest.mark.slow
def test_tiger_from_python(tmp_path: Path, text_encoder: Path) -> None:
    pruned = prune(
        made_interactions(),
        made_items(),
        budget=4,
        recommender="tiger",
        tiger={**SMALL_TIGER, "text_encoder": str(text_encoder)},
        data={"split": "leave-last-out", "warm_share": 0.5},
        surrogate={"dim": 8, "layers": 1, "max_epochs": 2},
        run_dir=tmp_path / "run",
    )
    assert len(pruned.selected) == 4
    with pytest.raises(ConfigError, match="Give llm"):
        prune(made_interactions(), made_items(), budget=4)


@pytest.mark.slow
def test_bigrec_starts_warm_from_an_adapter_of_the_earlier_part(
    write_config: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_config(data={"warm_share": 0.5}, warmstart={"learning_rate": 0.05, "batch_size": 8})
    outcomes = go(path, tmp_path / "run")
    assert outcomes[3].manifest.facts["samples"] > 0
    assert (tmp_path / "run" / "warmstart" / "model" / "adapter_model.safetensors").is_file()
    cold = write_config(tmp_path / "cold", data={"warm_share": 0.0})
    go(cold, tmp_path / "cold-run")
    warm_loss, cold_loss = (metrics(tmp_path / name, "base")["metrics"]["loss"]["mean"] for name in ("run", "cold-run"))
    assert warm_loss < cold_loss - 0.05


@pytest.mark.slow
def test_a_warm_start_takes_a_draw_of_the_earlier_part(write_config: Callable[..., Path], tmp_path: Path) -> None:
    path = write_config(data={"warm_share": 0.5}, warmstart={"samples": 3})
    outcomes = go(path, tmp_path / "run", until="warmstart")
    training = json.loads((tmp_path / "run" / "warmstart" / "model" / "training.json").read_text())
    assert outcomes[-1].manifest.facts["samples"] == training["samples"] == 3
    assert training["epochs"] == 1
    assert len(pl.read_parquet(tmp_path / "run" / "data" / "samples-warm.parquet")) > 3


@pytest.mark.slow
def test_a_given_adapter_is_where_effort_and_fine_tuning_start(
    write_config: Callable[..., Path], tmp_path: Path
) -> None:
    first = write_config(finetune={"learning_rate": 0.05})
    go(first, tmp_path / "first")
    adapter = tmp_path / "first" / "finetune" / "selected"
    again = write_config(tmp_path / "again", llm={"adapter": str(adapter)}, select={"random_arms": 0})
    outcomes = go(again, tmp_path / "second")
    assert outcomes[-1].stage == "report"
    given, base = metrics(tmp_path / "first", "selected"), metrics(tmp_path / "second", "base")
    assert base["metrics"]["loss"]["mean"] == pytest.approx(given["metrics"]["loss"]["mean"], abs=1e-6)
    efforts = [pl.read_parquet(tmp_path / name / "effort" / "details.parquet") for name in ("first", "second")]
    assert efforts[0]["loss"].to_list() != efforts[1]["loss"].to_list()


@pytest.mark.slow
def test_bigrec_in_bfloat16_learns_float32_adapters(write_config: Callable[..., Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    path = write_config(llm={"dtype": "bfloat16"}, select={"random_arms": 0}, finetune={"learning_rate": 0.05})
    outcomes = {outcome.stage: outcome for outcome in go(path, tmp_path / "run", until="evaluate")}
    assert outcomes["effort"].manifest.facts["dtype"] == "bfloat16"
    adapter = load_file(tmp_path / "run" / "finetune" / "selected" / "adapter_model.safetensors")
    assert {value.dtype for value in adapter.values()} == {torch.float32}
    single = write_config(llm={"dtype": "float32"}, select={"random_arms": 0}, finetune={"learning_rate": 0.05})
    again = {outcome.stage: outcome.ran for outcome in go(single, tmp_path / "run", until="effort")}
    assert again["effort"]
    assert not again["influence"]


@pytest.mark.slow
def test_the_whole_model_is_fine_tuned_by_the_same_code(write_config: Callable[..., Path], tmp_path: Path) -> None:
    path = write_config(
        finetune={"full": True, "patience": 1, "validation_samples": 5, "epochs": 2}, select={"random_arms": 0}
    )
    go(path, tmp_path / "run")
    folder = tmp_path / "run" / "finetune" / "selected"
    assert (folder / "model.safetensors").is_file()
    assert not (folder / "adapter_config.json").exists()
    facts = json.loads((folder / "training.json").read_text())
    assert len(facts["validation"]) == 2
    assert facts["best_step"] in (2, 4)
    base, selected = metrics(tmp_path / "run", "base"), metrics(tmp_path / "run", "selected")
    assert base["metrics"]["loss"]["mean"] != selected["metrics"]["loss"]["mean"]


@pytest.mark.slow
def test_effort_free_of_length_and_what_it_goes_with(write_config: Callable[..., Path], tmp_path: Path) -> None:
    path = write_config(effort={"pool": 40, "length_exponent": "fitted", "parameters": ["*layers.1*lora_B*"]})
    outcomes = go(path, tmp_path / "run", until="effort")
    exponent = outcomes[-1].manifest.facts["length_exponent"]
    details = pl.read_parquet(tmp_path / "run" / "effort" / "details.parquet").sort("sample_id")
    scores = pl.read_parquet(tmp_path / "run" / "effort" / "scores.parquet").sort("sample_id")
    expected = details["norm"] * details["tokens"].cast(pl.Float64) ** exponent
    assert scores["effort"].to_list() == pytest.approx(expected.to_list())
    table = pl.read_parquet(tmp_path / "run" / "effort" / "correlations.parquet")
    assert set(table["with"]) == {"tokens", "loss", "popularity"}
    assert {0.0, 0.5, 1.0, exponent} == set(table["exponent"])
    paper = write_config(tmp_path / "paper", effort={"pool": 40})
    go(paper, tmp_path / "paper-run", until="effort")
    norms = pl.read_parquet(tmp_path / "paper-run" / "effort" / "details.parquet").sort("sample_id")["norm"]
    assert (norms > details["norm"]).all()  # all adapters, not one layer's


@pytest.mark.parametrize(("tracker", "told"), [("banana", "has no tracker 'banana'"), ("swanlab", "is not installed")])
def test_a_tracker_that_is_not_there_is_refused_before_anything_is_computed(
    write_config: Callable[..., Path], tmp_path: Path, tracker: str, told: str
) -> None:
    path = write_config(finetune={"report_to": tracker})
    with pytest.raises(ConfigError, match=f"finetune.report_to: .*{told}"):
        go(path, tmp_path / "run", until="surrogate")


@pytest.mark.slow
def test_each_training_is_tracked_in_a_folder_of_its_own(
    write_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_config(
        finetune={"report_to": "tensorboard"}, warmstart={"report_to": "tensorboard"}, data={"warm_share": 0.5}
    )
    logs = tmp_path / "run" / "tracking"
    go(path, tmp_path / "run", until="finetune")
    trained = {"finetune/selected": None, "finetune/random-0": None, "warmstart/warm-start": "warmstart/model"}
    for name, folder in trained.items():
        (session,) = (logs / name).iterdir()
        went = json.loads((tmp_path / "run" / (folder or name) / "training.json").read_text())
        losses = logged(session, "train/loss")
        assert len(losses) == went["steps"]
        assert sum(losses) / len(losses) == pytest.approx(went["training_loss"], rel=1e-3)
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "elsewhere"))
    go(path, tmp_path / "other", until="warmstart")
    assert not (tmp_path / "other" / "tracking").exists()
    assert [folder.name for folder in (tmp_path / "elsewhere").iterdir()] == ["warmstart"]
    assert os.environ["TENSORBOARD_LOGGING_DIR"] == str(tmp_path / "elsewhere")


def logged(session: Path, tag: str) -> list[float]:
    """The values of a curve as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(session))
    events.Reload()
    return [float(event.value) for event in events.Scalars(tag)]
