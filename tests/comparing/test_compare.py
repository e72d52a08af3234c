"""The comparison of methods on a tiny LLM, from the command line to the page."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from dealrec.comparing import cells
from dealrec.comparing.outcome import compare
from dealrec.comparing.replicates import labels, replicate_config
from dealrec.comparing.run import run_replicates
from dealrec.config import Config
from dealrec.config.arms import arms, replicate_seed
from dealrec.config.files import load
from dealrec.engine.stage import Silent
from dealrec.errors import ConfigError
from dealrec.stages import finetune
from dealrec.stages.recommenders import training
from tests.conftest import Cli, write_small_config

pytestmark = pytest.mark.slow  # whole comparisons

RAISES = "SIGNALS = ()\n\n\ndef select(signals, budget, generator):\n    raise KeyError('no such column')\n"
FIRST = '''"""The first."""

import polars as pl

SIGNALS = ("history_length",)


def select(signals, budget, generator, *, turned: bool = False):
    rows = (signals.reverse() if turned else signals)[:budget]
    return rows.select("sample_id", pl.col("history_length").alias("score"), pl.lit("first").alias("reason"))
'''
SETTINGS: dict[str, Any] = {
    "select": {"method": "surrogate-loss-drop", "budget": 6},
    "pool": {"size": 20},
    "compare": {
        "methods": ["influence", "loss-drop", "validation", "first.py", "raises.py"],
        "replicates": 2,
        "random_sizes": [1, 2],
    },
}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, tiny_llm: Path) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    path = write_small_config(folder, tiny_llm, **SETTINGS)
    (folder / "first.py").write_text(FIRST)
    (folder / "raises.py").write_text(RAISES)
    compare(load(path), folder / "run", progress=Silent())
    return folder


def content(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run" / "comparison.json").read_text())  # type: ignore[no-any-return]


def test_every_method_has_a_cell_in_each_replicate_and_one_that_fails_is_named(compared: Path) -> None:
    cells = pl.read_parquet(compared / "run" / "comparison.parquet")
    names = {"selected", "influence", "loss-drop", "validation", "first", "random-x1", "random-x2"}
    assert {(arm, replicate) for arm in names for replicate in (0, 1)} == set(
        cells.select("arm", "replicate").iter_rows()
    )
    assert set(cells.filter(pl.col("arm") == "random-x2")["size"]) == {12}
    assert set(cells.filter(pl.col("arm") != "random-x2")["size"]) == {6}
    assert cells["loss"].is_finite().all()
    assert cells["valid_loss"].is_finite().all()
    assert (cells["label_tokens"] > 6).all()
    shown = content(compared)
    assert "failed with KeyError: 'no such column'" in shown["failures"]["raises"]
    assert [point["size"] for point in shown["curve"]] == [6, 12]


def test_replicates_share_the_data_and_nothing_that_is_drawn(compared: Path) -> None:
    first, second = (compared / "run" / f"replicate-{number}" for number in (0, 1))
    assert (first / "data/items.parquet").samefile(second / "data/items.parquet")
    for name in ("surrogate/model.safetensors", "select/random-x1.parquet", "surrogate_loss_drop/scores.parquet"):
        assert (first / name).read_bytes() != (second / name).read_bytes()
    users = [pl.read_parquet(folder / "evaluate/selected/per_user.parquet")["user_id"] for folder in (first, second)]
    assert users[0].equals(users[1])


def test_an_arm_is_compared_with_random_of_its_size(compared: Path) -> None:
    shown = content(compared)
    arm = next(arm for arm in shown["arms"] if arm["arm"] == "loss-drop")

    def means(name: str) -> list[float]:
        folders = [compared / "run" / f"replicate-{number}" / "evaluate" / name for number in (0, 1)]
        return [float(pl.read_parquet(folder / "per_user.parquet")["loss"].mean()) for folder in folders]  # type: ignore[arg-type]

    expected = sum(means("loss-drop")) / 2 - sum(means("random-x1")) / 2
    assert arm["differences"]["loss"]["mean"] == pytest.approx(expected)
    assert arm["cost"] > 0
    assert next(arm for arm in shown["arms"] if arm["arm"] == "validation")["cost"] == 0
    assert set(arm["segments"]) <= set(shown["segments"])


def test_nothing_is_computed_twice_and_what_is_added_is_computed_alone(
    compared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    train = training.train_on

    def watched(context: Any, name: str, *rest: Any, **options: Any) -> None:
        trained.append(name)
        train(context, name, *rest, **options)

    monkeypatch.setattr(finetune, "train_on", watched)
    config = load(compared / "config.yaml")
    run_replicates(config, compared / "run", progress=Silent())
    assert trained == []
    more = config.model_copy(update={"compare": config.compare.model_copy(update={"random_sizes": [1, 2, 3]})})
    run_replicates(more, compared / "run", progress=Silent())
    assert trained == ["random-x3"] * 2
    run_replicates(config, compared / "run", progress=Silent())


def test_another_configuration_is_refused(compared: Path) -> None:
    other = load(compared / "config.yaml", ["finetune.epochs=2"])
    with pytest.raises(ConfigError, match=r"another configuration: finetune differ.*Choose another"):
        run_replicates(other, compared / "run", progress=Silent())


def test_a_setting_that_a_comparison_does_not_know_yet_counts_as_its_default(compared: Path) -> None:
    path = compared / "run" / "comparison-config.json"
    settings = path.read_text()
    written = json.loads(settings)
    del written["data"]["targets"]
    path.write_text(json.dumps(written))
    run_replicates(load(compared / "config.yaml"), compared / "run", progress=Silent())
    with pytest.raises(ConfigError, match="another configuration: data differ"):
        run_replicates(load(compared / "config.yaml", ["data.targets=all"]), compared / "run", progress=Silent())
    path.write_text(settings)


def test_the_command_shows_a_table_a_page_and_json(compared: Path, cli: Cli) -> None:
    status, out, err = cli("compare", compared / "config.yaml", "--run-dir", compared / "run")
    assert status == 0, err
    for text in (
        "In random samples: 2 replicates",
        "surrogate-loss-drop are worth",
        "raises selected nothing",
        "Random",
    ):
        assert text in out
    page = (compared / "run" / "comparison.html").read_text()
    assert "<svg" in page
    assert page.count("<circle") == 5  # an arm each
    assert "KeyError" in page
    status, out, _ = cli("compare", compared / "config.yaml", "--run-dir", compared / "run", "--json")
    assert json.loads(out)["replicates"] == 2
    assert "arms" in json.loads(out)


def test_a_dry_run_says_how_long_and_writes_nothing(compared: Path, tmp_path: Path, cli: Cli) -> None:
    path = compared / "config.yaml"
    status, out, err = cli("compare", path, "--run-dir", tmp_path / "new", "--dry-run", "--json")
    assert status == 0, err
    assert not (tmp_path / "new").exists()
    shown = json.loads(out)
    assert shown["replicates"] == 2
    assert shown["seconds"] > 0
    status, out, _ = cli("compare", path, "--run-dir", compared / "run", "--dry-run")
    assert status == 0
    assert "The other 1 replicates: 0.0 s of work. In all: about 0.0 s." in out  # all is there


def test_one_replicate_gets_no_verdict(tmp_path: Path, tiny_llm: Path) -> None:
    path = write_small_config(tmp_path, tiny_llm, **SETTINGS)
    config = load(path, ["compare.replicates=1", "compare.methods=[most-recent]", "evaluate.ranking_users=0"])
    outcome = compare(config, tmp_path / "run", progress=Silent())
    assert [arm.differences["loss"].verdict for arm in outcome.results.arms] == [None, None]
    assert "one replicate gets no verdict" in (tmp_path / "run" / "comparison.html").read_text()


def test_an_arm_without_what_it_needs_is_left_out_and_named(tmp_path: Path, tiny_llm: Path) -> None:
    path = write_small_config(tmp_path, tiny_llm, **SETTINGS)
    changes = ["compare.replicates=1", "evaluate.ranking_users=0", "data.columns.timestamp=null"]
    config = load(path, [*changes, "compare.methods=[most-recent, influence, {method: validation, budget: 41}]"])
    outcome = compare(config, tmp_path / "run", progress=Silent())
    assert "needs times that can be compared between users" in outcome.failures["most-recent"]
    assert "above its 40 candidates" in outcome.failures["validation@41"]
    assert {arm.arm for arm in outcome.results.arms} == {"selected", "influence"}


def test_validation_samples_are_no_selection_of_a_run(tmp_path: Path, tiny_llm: Path, cli: Cli) -> None:
    path = write_small_config(tmp_path, tiny_llm, select={"method": "validation"})
    status, _, err = cli("run", path, "--run-dir", tmp_path / "run")
    assert status == 2
    assert "selects no training samples" in err
    assert "compare.methods" in err


def test_workers_come_to_the_same(compared: Path, tmp_path: Path) -> None:
    config = load(compared / "config.yaml", ["compare.workers=2", "compare.methods=[]", "compare.random_sizes=[1]"])
    run_replicates(config, tmp_path / "run", progress=Silent())
    name = "replicate-1/evaluate/selected/per_user.parquet"
    ours, theirs = (pl.read_parquet(folder / name) for folder in (tmp_path / "run", compared / "run"))
    assert ours["loss"].to_list() == pytest.approx(theirs["loss"].to_list(), abs=1e-6)


def test_replicates_start_at_their_own_warm_start_where_that_is_wanted(tmp_path: Path, tiny_llm: Path) -> None:
    data = {"split": "time", "warm_share": 0.5, "samples_per_user": 3}
    compare_own = {**SETTINGS["compare"], "methods": [], "random_sizes": [1], "warm_starts": "own"}
    path = write_small_config(tmp_path, tiny_llm, **{**SETTINGS, "data": data, "compare": compare_own})
    config = load(path)

    def starts() -> list[bytes]:
        folders = run_replicates(config, tmp_path / "run", progress=Silent())
        assert (folders[0] / "data/items.parquet").samefile(folders[1] / "data/items.parquet")
        return [next((folder / "warmstart").rglob("adapter_model.safetensors")).read_bytes() for folder in folders]

    first, second = starts()
    assert first != second
    config = load(path, ["compare.warm_starts=shared"])
    assert starts() == [first, first]


def test_the_arms_of_a_replicate() -> None:
    settings = {
        "select": {"method": "loss-drop", "budget": 0.1},
        "compare": {
            "methods": ["loss-drop", {"method": "loss-drop", "options": {"spread": "top"}}, "dir/mine.py"],
            "random_sizes": [1, 8, 16],
            "budgets": [0.02],
        },
    }
    config = Config.model_validate(settings)
    expected = {
        "selected": ("loss-drop", 0.1),
        "random-x1": ("random", 0.1),
        "random-x8": ("random", 0.8),  # 16 times the budget is more than there is
        "loss-drop-spread-top": ("loss-drop", 0.1),
        "mine": ("dir/mine.py", 0.1),
        "random@0.02": ("random", 0.02),
        "loss-drop@0.02": ("loss-drop", 0.02),
        "loss-drop-spread-top@0.02": ("loss-drop", 0.02),
        "mine@0.02": ("dir/mine.py", 0.02),
    }
    assert {name: (arm.method, arm.budget) for name, arm in arms(replicate_config(config, 0)).items()} == expected
    assert labels(config)["mine@0.02"] == "mine"
    seeds = [{arm.seed for arm in arms(replicate_config(config, number)).values()} for number in (0, 1)]
    assert not seeds[0] & seeds[1]
    assert replicate_seed(replicate_config(config, 0)) == config.seed


def test_a_sample_s_price_is_what_one_more_adds_whatever_other_arms_there_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Trainings of three seconds and a tenth of one a sample; of a GPU the wall counts."""
    sizes = {"random-x1": 10, "random-x4": 40, "mine": 10}
    costs = {name: (7 + 0.2 * size, 3 + 0.1 * size) for name, size in sizes.items()}
    manifest = SimpleNamespace(device="cpu", unit_costs=costs, cpu_seconds=15.0, wall_seconds=50.0)
    monkeypatch.setattr(cells, "read_manifest", lambda _folder: manifest)
    those = [
        cells.Cell(name, name.partition("-")[0], 0, 0, size, size, 0, tmp_path / "evaluate" / name)
        for name, size in sizes.items()
    ]
    assert cells.seconds_per_sample(those, tmp_path) == pytest.approx(0.1)
    assert cells.seconds_per_sample(those[:2], tmp_path) == pytest.approx(0.1)
    assert cells.seconds_per_sample(those[1:], tmp_path) == pytest.approx(15 / 50)  # one size: the mean
    manifest.device = "cuda:0"
    assert cells.seconds_per_sample(those, tmp_path) == pytest.approx(0.2)
