"""The signals that stages compute, against what they are by definition, on a tiny LLM."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from dealrec.config import Config
from dealrec.config.files import load
from dealrec.config.presets import PRESETS
from dealrec.engine.manifest import read_manifest
from dealrec.engine.runner import run
from dealrec.engine.stage import Silent
from dealrec.errors import ConfigError, ModelError
from dealrec.stages import (
    alignment,
    loss,
    loss_drop,
    surrogate,
    surrogate_loss,
    surrogate_state,
    target_cluster,
    text_embedding,
    title_embedding,
)
from dealrec.stages.context import Context
from dealrec.stages.feasibility import check_data
from dealrec.stages.methods import signals_of
from dealrec.stages.pipeline import stages, stages_until
from dealrec.stages.signals import data_signals
from dealrec.stages.validation_draw import cross_fitted, require_validation
from tests.conftest import Cli, made_interactions, write_small_config

pytestmark = pytest.mark.slow  # runs

SETTINGS: dict[str, Any] = {
    "select": {"method": "both-loss-drops", "budget": 6},
    "pool": {"size": 20, "method": "random"},
    "loss_drop": {"shard_size": 7, "validation_samples": 30},
    "surrogate_loss_drop": {"validation_samples": 30},
    "surrogate": {"dropout": 0.0},
}


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory, tiny_llm: Path) -> Path:
    folder = tmp_path_factory.mktemp("signals")
    path = write_small_config(folder, tiny_llm, **SETTINGS)
    config = load(path)
    run(config, folder / "run", stages_until(config, "report"), progress=Silent())
    return folder


def table(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / "run" / name)


def context_of(folder: Path, out: Path, *inputs: str) -> Context:
    (out / "stage").mkdir(parents=True, exist_ok=True)
    config = load(folder / "config.yaml")
    return Context("stage", config, Silent(), folder / "run", out / "stage", ("data", "surrogate", "pool", *inputs))


def test_only_the_stages_of_the_signals_that_are_read_run(selected: Path) -> None:
    folders = {path.parent.name for path in (selected / "run").glob("*/manifest.json")}
    computed = {"surrogate", "surrogate_loss", "surrogate_loss_drop", "warmstart", "pool", "loss", "loss_drop"}
    later = {"select", "export", "finetune", "evaluate", "compare", "report"}
    assert folders == {"data", *computed, *later}
    influence = Config.model_validate({"select": {"method": "influence"}})
    names = [stage.name for stage in stages(influence)]
    assert names[:4] == ["data", "surrogate", "influence", "warmstart"]
    assert "pool" not in names


def test_loss_drop_is_the_loss_of_all_target_tokens_before_less_after(selected: Path, tmp_path: Path) -> None:
    from dealrec.stages.recommenders import kinds

    before = table(selected, "loss/details.parquet")
    pool = table(selected, "pool/pool.parquet")
    assert before["sample_id"].to_list() == pool["sample_id"].to_list()
    drop = table(selected, "loss_drop/scores.parquet")["loss_drop"]
    context = context_of(selected, tmp_path, "warmstart", "loss")
    kind = kinds.kind(context.config)
    untuned = loss.candidate_losses(context, kind.start(context))
    assert before["loss"].to_list() == pytest.approx(untuned["loss"].to_list(), abs=1e-6)
    again = context_of(selected, tmp_path / "again", "warmstart", "loss")
    loss_drop.run(again)
    tuned = kind.fine_tuned(again, again.shard("tuned-0"))
    after = loss.candidate_losses(context_of(selected, tmp_path / "after", "warmstart"), tuned)
    expected = (untuned["loss"] - after["loss"]) * untuned["tokens"]
    assert drop.to_list() == pytest.approx(expected.to_list(), abs=1e-4)
    assert (drop.to_numpy() > 0).mean() > 0.5  # what is like validation is learnt


def test_alignment_is_the_product_of_gradients_of_all_target_tokens(selected: Path, tmp_path: Path) -> None:
    from dealrec.sequences import collate, sequence_losses
    from dealrec.stages.recommenders import kinds
    from dealrec.stages.recommenders.training import encode
    from dealrec.stages.validation_draw import draw_validation

    context = context_of(selected, tmp_path, "warmstart")
    alignment.run(context)
    scores = pl.read_parquet(context.out / "scores.parquet")
    recommender = kinds.kind(context.config).start(context)
    recommender.model.eval()
    learnable = [value for value in recommender.model.parameters() if value.requires_grad]

    def gradient(sample: pl.DataFrame) -> torch.Tensor:
        loss = sequence_losses(
            recommender.model, collate(encode(context, recommender, sample), pad_id=recommender.pad_id)
        ).sum()
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, learnable)])

    valid, train = (table(selected, f"data/samples-{part}.parquet") for part in ("valid", "train"))
    drawn = valid[draw_validation(context, len(valid), 30)]
    mean = torch.stack([gradient(drawn[i]) for i in range(len(drawn))]).mean(0)
    tokens = table(selected, "loss/details.parquet")
    assert scores["sample_id"].to_list() == tokens["sample_id"].to_list()
    for row in scores[:5].join(tokens, on="sample_id").to_dicts():
        expected = float(gradient(train[row["sample_id"]]) @ mean) * row["tokens"]
        assert row["alignment"] == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_the_surrogate_s_loss_is_that_of_the_target_alone(selected: Path, tmp_path: Path) -> None:
    from dealrec.surrogate import Negatives
    from dealrec.surrogate.losses import unit_losses
    from dealrec.surrogate.units import batch

    context = context_of(selected, tmp_path)
    model = surrogate.trained(context)
    losses = surrogate_loss.target_losses(context, model)
    units = surrogate.units(context, "train", whole=False)
    negatives = Negatives(model.n_items, 64, context.config.seed, share=True)
    with torch.no_grad():
        alone = [
            float(unit_losses(model, batch(units, negatives, torch.tensor([i])), loss="sampled-softmax"))
            for i in range(5)
        ]
    assert losses[:5].tolist() == pytest.approx(alone, abs=1e-5)
    assert table(selected, "surrogate_loss/scores.parquet")["surrogate_loss"].to_list() == pytest.approx(
        losses.tolist()
    )


def test_the_surrogate_s_state_is_what_scores_the_target(selected: Path, tmp_path: Path) -> None:
    context = context_of(selected, tmp_path)
    surrogate_state.run(context)
    states = pl.read_parquet(context.out / "scores.parquet")["surrogate_state"].to_torch()
    model, samples = surrogate.trained(context), table(selected, "data/samples-train.parquet")
    index = dict(table(selected, "data/items.parquet").select("item_id", "item_index").iter_rows())
    assert len(states) == len(samples)
    for row in samples[:5].to_dicts():
        history = torch.tensor([[index[item] for item in row["history"]]])
        with torch.no_grad():
            expected = model.next_states(history, torch.tensor([history.shape[1]]))[0]
        torch.testing.assert_close(states[row["sample_id"]], expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def embedded(selected: Path, text_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with what its samples are about beside it, in the folder of a run of its own."""
    folder = tmp_path_factory.mktemp("embedded")
    shutil.copytree(selected / "run" / "data", folder / "run" / "data")
    settings = [f"text.encoder={text_encoder}", "text.clusters=4"]
    for stage in (title_embedding.STAGE, text_embedding.STAGE, target_cluster.STAGE):
        out = folder / "run" / stage.name
        out.mkdir()
        config = load(selected / "config.yaml", settings)
        stage.run(Context(stage.name, config, Silent(), folder / "run", out, stage.inputs))
    return folder


def test_titles_are_embedded_as_for_the_semantic_ids(embedded: Path, text_encoder: Path) -> None:
    from dealrec.recommenders.tiger import embed_texts
    from dealrec.recommenders.tiger.files import load_text_encoder

    rows = table(embedded, "title_embedding/items.parquet")
    items = table(embedded, "data/items.parquet").sort("item_index")
    assert rows["item_index"].to_list() == list(range(1, len(items) + 1))
    assert rows["item_id"].to_list() == items["item_id"].to_list()
    expected = embed_texts(load_text_encoder(str(text_encoder)), items["title"].to_list())
    torch.testing.assert_close(rows["title_embedding"].to_torch(), expected, rtol=1e-5, atol=1e-6)


def test_a_sample_s_text_is_its_target_s_title_and_its_history_s(embedded: Path) -> None:
    rows = table(embedded, "text_embedding/scores.parquet")
    title = dict(table(embedded, "title_embedding/items.parquet").select("item_id", "title_embedding").iter_rows())
    train, valid = (table(embedded, f"data/samples-{part}.parquet") for part in ("train", "valid"))
    assert rows["sample_id"].to_list() == list(range(len(train) + len(valid)))
    for sample, samples in ((0, train), (5, train), (len(train) + 3, valid)):
        row = samples.row(sample if samples is train else sample - len(train), named=True)
        mean = torch.tensor([title[item] for item in row["history"]]).mean(0)
        expected = torch.cat([torch.tensor(title[row["target"]]), mean / mean.norm()]) / 2**0.5
        torch.testing.assert_close(rows["text_embedding"].to_torch()[sample], expected, rtol=1e-4, atol=1e-5)


def test_targets_of_one_title_share_a_cluster_and_its_share_is_that_of_validation(embedded: Path) -> None:
    rows = table(embedded, "target_cluster/scores.parquet")
    train, valid = (table(embedded, f"data/samples-{part}.parquet") for part in ("train", "valid"))
    title = dict(table(embedded, "data/items.parquet").select("item_id", "title").iter_rows())
    titles = [title[item] for item in pl.concat([train["target"], valid["target"]])]
    clusters = rows.with_columns(pl.Series("title", titles))
    assert clusters.group_by("title").agg(pl.col("target_cluster").n_unique())["target_cluster"].max() == 1
    assert 1 < clusters["target_cluster"].n_unique() <= 4
    held_out = rows[len(train) :]["target_cluster"].to_list()
    for cluster, share in rows.select("target_cluster", "cluster_share").iter_rows():
        assert share == pytest.approx(held_out.count(cluster) / len(held_out))


def test_an_option_has_the_stages_of_its_signals_run_and_those_alone(
    selected: Path, text_encoder: Path, tmp_path: Path
) -> None:
    shutil.copytree(selected / "run", tmp_path / "run")
    settings = [f"text.encoder={text_encoder}", "text.clusters=4", "select.options={spread: cluster-quota}"]
    arm = "select.arms={wide: {method: facility-location}}"
    config = load(selected / "config.yaml", settings)
    names = [stage.name for stage in stages(config)]
    assert "title_embedding" in names
    assert "target_cluster" in names
    assert "text_embedding" not in names
    config = load(selected / "config.yaml", [*settings, arm])
    outcomes = run(config, tmp_path / "run", stages_until(config, "select"), progress=Silent())
    ran = [outcome.stage for outcome in outcomes if outcome.ran]
    assert ran == ["title_embedding", "text_embedding", "target_cluster", "select"]
    assert "of its cluster" in table(tmp_path, "select/selected.parquet")["reason"][0]
    assert len(table(tmp_path, "select/wide.parquet")) == 6


def test_an_encoder_that_is_not_there_is_named_by_its_setting(selected: Path, tmp_path: Path) -> None:
    config = load(selected / "config.yaml", ["text.encoder=/nowhere", "select.method=facility-location"])
    with pytest.raises(ModelError, match=r"no model directory /nowhere\. Check text\.encoder"):
        run(config, tmp_path / "run", stages_until(config, "select"), progress=Silent())
    assert not (tmp_path / "run" / "surrogate").exists()


def test_the_surrogate_s_drop_is_largest_where_validation_has_the_targets(selected: Path) -> None:
    drop = table(selected, "surrogate_loss_drop/scores.parquet")
    items = table(selected, "data/items.parquet")
    train = table(selected, "data/samples-train.parquet").join(drop, on="sample_id")
    valid = table(selected, "data/samples-valid.parquet")["target"].unique()
    assert len(drop) == len(train)
    assert len(items) == 30
    there = train["target"].is_in(valid.implode())
    assert train.filter(there)["surrogate_loss_drop"].mean() > train.filter(~there)["surrogate_loss_drop"].mean()  # type: ignore[operator]


def test_what_follows_from_the_data(selected: Path, tmp_path: Path) -> None:
    train, valid = data_signals(context_of(selected, tmp_path))
    samples, held_out = (table(selected, f"data/samples-{part}.parquet") for part in ("train", "valid"))
    assert train["history_length"].to_list() == [len(history) for history in samples["history"]]
    assert valid["sample_id"].to_list() == [len(samples) + i for i in range(len(held_out))]
    first = samples.row(0, named=True)
    assert train["train_share"][0] == (samples["target"] == first["target"]).sum() / len(samples)
    assert train["valid_share"][0] == (held_out["target"] == first["target"]).sum() / len(held_out)
    times = table(selected, "data/interactions-train.parquet").sort("user_id", "position").group_by("user_id").last()
    by_user = dict(zip(times["user_id"], times["timestamp"], strict=True))
    assert train["timestamp"].to_list() == [by_user[user] for user in samples["user_id"]]


def test_selections_of_a_method_that_draws_nothing_are_said_to_be_the_same(selected: Path, tmp_path: Path) -> None:
    from dealrec.stages import select

    config = load(selected / "config.yaml", ["select.selections=2"])
    inputs = select.stage(config).inputs
    context = Context("select", config, Silent(), selected / "run", tmp_path, inputs)
    select.run(context)
    (warning,) = context.warnings
    assert "all 2 selections are the same: both-loss-drops draws nothing" in warning


def test_selected_and_candidates_have_the_signals_and_a_reason(selected: Path) -> None:
    chosen, candidates = table(selected, "select/selected.parquet"), table(selected, "select/candidates.parquet")
    columns = ["sample_id", "rank", "loss_drop", "surrogate_loss_drop", "overall", "reason"]
    assert chosen.columns == candidates.columns == columns
    assert sorted(chosen["rank"]) == [1, 2, 3, 4, 5, 6]
    assert chosen.sort("rank")["overall"].is_sorted(descending=True)
    assert len(candidates) == 20
    assert candidates["overall"].null_count() == 0
    assert candidates.drop_nulls("rank")["sample_id"].to_list() == chosen["sample_id"].to_list()
    manifest = read_manifest(selected / "run" / "select")
    assert manifest is not None
    assert manifest.facts["method"] == "both-loss-drops"


def test_the_report_and_the_terminal_show_the_signals_of_the_method(selected: Path, cli: Cli) -> None:
    page = (selected / "run" / "report" / "report.html").read_text()
    for text in ('data-column="loss_drop"', 'data-column="surrogate_loss_drop"', "no. 1 of its target", "not selected"):
        assert text in page
    assert 'data-column="stratum"' not in page
    status, out, _ = cli("run", selected / "config.yaml", "--run-dir", selected / "run")
    assert status == 0
    assert "from 20 candidates by both-loss-drops" in out
    status, out, err = cli("report", "--compare", selected / "run", selected / "run", "--out", selected / "two.html")
    assert status == 0, err
    status, _, err = cli("export", selected / "run", "--to", "jsonl", "--out", selected / "exported")
    assert status == 0, err
    assert len((selected / "exported" / "train.jsonl").read_text().splitlines()) == 6


def test_a_random_selection_goes_through_to_the_report_and_the_export(
    write_config: Callable[..., Path], cli: Cli, tmp_path: Path
) -> None:
    arms = {"drawn": {"method": "random"}}
    path = write_config(select={"method": "random", "budget": 6, "arms": arms}, effort={})
    status, _, err = cli("run", path, "--run-dir", tmp_path / "run")
    assert status == 0, err
    chosen = pl.read_parquet(tmp_path / "run" / "select" / "selected.parquet")
    assert chosen.columns == ["sample_id", "rank", "overall", "reason"]
    assert chosen["reason"].unique().to_list() == ["drawn at random"]
    for arm in ("random-0", "drawn"):
        assert pl.read_parquet(tmp_path / "run" / "select" / f"{arm}.parquet").columns == ["sample_id"]
    for arm in ("selected", "drawn"):
        status, _, err = cli("export", tmp_path / "run", "--to", "jsonl", "--arm", arm, "--out", tmp_path / arm)
        assert status == 0, err
        assert len((tmp_path / arm / "train.jsonl").read_text().splitlines()) == 6
    assert "drawn at random" in (tmp_path / "run" / "report" / "report.html").read_text()


def test_few_validation_samples_are_warned_of(selected: Path) -> None:
    manifest = read_manifest(selected / "run" / "loss_drop")
    assert manifest is not None
    assert "tuned on 30 validation samples" in manifest.warnings[0]


def test_without_validation_samples_a_signal_is_refused_before_anything_is_trained(
    selected: Path, tmp_path: Path
) -> None:
    config = load(selected / "config.yaml")
    shutil.copytree(selected / "run" / "data", tmp_path / "data")
    check_data(config, tmp_path)
    table(selected, "data/samples-valid.parquet").head(0).write_parquet(tmp_path / "data" / "samples-valid.parquet")
    with pytest.raises(ConfigError, match=r"^loss_drop needs validation samples to aim at, at least 1; there are 0"):
        check_data(config, tmp_path)
    halves = config.model_copy(update={"data": config.data.model_copy(update={"final": True})})
    with pytest.raises(ConfigError, match="at least 2; there are 1"):
        require_validation(halves, "alignment", 1)


def test_the_pool_s_method_must_not_need_the_pool() -> None:
    config = Config.model_validate({"select": {"method": "loss-drop"}, "pool": {"method": "effort"}})
    with pytest.raises(ConfigError, match=r"pool.method 'effort' needs effort, which is known of the pool alone"):
        signals_of(config)


def test_an_unknown_method_is_refused_with_the_nearest(cli: Cli, selected: Path, tmp_path: Path) -> None:
    status, _, err = cli(
        "run", selected / "config.yaml", "--run-dir", tmp_path / "run", "--set", "select.method=los-drop"
    )
    assert status == 2
    assert "There is no method 'los-drop'. Did you mean loss-drop?" in err
    status, _, err = cli("run", selected / "config.yaml", "--run-dir", tmp_path / "x", "--set", "select.method=no.py")
    assert status == 2
    assert "no Python file" in err


def test_settings_of_earlier_versions_still_mean_the_same() -> None:
    config = Config.model_validate({"effort": {"pool": 12, "shard_size": 3}})
    assert (config.pool.size, config.effort.shard_size) == (12, 3)
    for name in ("paper", "reference"):
        preset = Config.model_validate(PRESETS[name])
        assert preset.select.method == "dealrec"
        assert preset.pool.size == 1.0
        assert preset.influence.risk == "train"


def test_methods_are_listed(cli: Cli) -> None:
    status, out, _ = cli("methods", "--json")
    assert status == 0
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["dealrec"]["signals"] == ["influence", "effort"]
    assert rows["dealrec"]["options"] == {"effort_weight": 0.3, "strata": 50, "hard_prune": 0.0}
    status, out, _ = cli("methods")
    assert "2510.00386" in out.replace("\n", "")


def test_a_final_selection_takes_from_all_interactions_and_tunes_on_no_sample_that_it_scores(
    tmp_path: Path, tiny_llm: Path, cli: Cli
) -> None:
    path = write_small_config(tmp_path, tiny_llm, **SETTINGS)
    status, out, err = cli(
        "run",
        path,
        "--run-dir",
        tmp_path / "run",
        "--final",
        "--set",
        "data.samples_per_user=3",
        "--set",
        "pool.size=1.0",
    )
    assert status == 0, err
    assert "nothing is left to test it on" in out
    train, valid, test = (
        pl.read_parquet(tmp_path / "run" / "data" / f"samples-{part}.parquet") for part in ("train", "valid", "test")
    )
    last = made_interactions().sort("user_id", "timestamp").group_by("user_id", maintain_order=True).last()
    assert len(test) == 0
    assert len(valid) == 40
    assert valid["target"].to_list() == last["item_id"].to_list()  # the newest of each user, which was the test item
    there = valid.join(train, on=["sample_id", "user_id", "target", "history"], how="semi")
    assert len(there) == 40  # candidates themselves, under the same ids
    assert len(train) == 3 * 40
    manifests = {name: read_manifest(tmp_path / "run" / name) for name in ("surrogate", "loss_drop", "select")}
    assert not (tmp_path / "run" / "finetune").exists()
    assert manifests["surrogate"].facts["units"] == 80  # type: ignore[union-attr]
    assert manifests["loss_drop"].facts["folds"] == 2  # type: ignore[union-attr]
    assert "Final selection" in (tmp_path / "run" / "report" / "report.html").read_text()


def test_no_sample_is_scored_by_a_model_that_was_tuned_on_it() -> None:
    ids = pl.Series([10, 11, 12])
    drops = [pl.Series([1.0, 2.0, 3.0]), pl.Series([10.0, 20.0, 30.0])]
    scores = cross_fitted(drops, ids, [pl.Series([10]), pl.Series([11])])
    assert scores.to_list() == [10.0, 2.0, (3.0 + 30.0) / 2]
    assert cross_fitted(drops[:1], ids, [pl.Series([], dtype=pl.Int64)]).to_list() == [1.0, 2.0, 3.0]


def test_influence_cannot_aim_at_samples_that_are_candidates(tmp_path: Path, tiny_llm: Path, cli: Cli) -> None:
    path = write_small_config(tmp_path, tiny_llm)
    status, _, err = cli("run", path, "--run-dir", tmp_path / "run", "--final")
    assert status == 2
    assert "cannot aim influence at the newest samples" in err
