"""`dealrec fidelity` on made-up data: repeated, resumed, and with any number of processes the same."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml
from polars.testing import assert_frame_equal

from dealrec.cli.commands import app
from dealrec.columns import PARTS
from dealrec.config import Config
from dealrec.config.files import load
from dealrec.engine.run_directory import read_table
from dealrec.engine.runner import run
from dealrec.engine.stage import Context, Silent
from dealrec.stages import fidelity as checks
from dealrec.stages import retrain as retraining
from dealrec.stages.pipeline import FIDELITY_STAGES
from dealrec.stages.pipeline import stages as declared
from tests.conftest import Cli, made_interactions, made_items, small_settings

STAGES = declared(Config.model_validate({"select": {"method": "dealrec"}, "pool": {"method": "influence-strata"}}))

pytestmark = pytest.mark.slow

SETTINGS = {
    "subsets": 4,
    "shares": [0.5],
    "groups": 3,
    "surrogates": 2,
    "workers": 1,
    "compared": [{"risk": "valid"}, {"risk": "train", "solver": {"kind": "identity"}}],
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config and a finished check."""
    folder = tmp_path_factory.mktemp("fidelity")
    made_interactions().write_parquet(folder / "interactions.parquet")
    made_items().write_parquet(folder / "items.parquet")
    content = small_settings(folder / "no-llm") | {"fidelity": SETTINGS}
    del content["llm"]
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    check(folder / "config.yaml", folder / "run")
    return folder


def check(config: Path, run_dir: Path, *overrides: str) -> dict[str, bool]:
    outcomes = run(load(config, overrides), run_dir, FIDELITY_STAGES, progress=Silent())
    return {outcome.stage: outcome.ran for outcome in outcomes}


def risks(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "run" / "retrain" / "risks.parquet")


def context(folder: Path) -> Context:
    stage = FIDELITY_STAGES[-1]
    inputs = (*stage.inputs, "surrogate/training.parquet")
    return Context(stage.name, load(folder / "config.yaml"), Silent(), folder / "run", folder, inputs)


def test_every_training_gives_every_group_a_risk_in_every_part(done: Path) -> None:
    table = risks(done)
    assert table.filter(pl.col("share") == 0.5).group_by("subset", "seed").len()["len"].to_list() == [3 * 3] * 4 * 2
    assert table.filter(pl.col("share") == 1).group_by("seed").len()["len"].to_list() == [3 * 3]
    assert table["risk"].is_finite().all()
    assert table["risk"].n_unique() == len(table)


def test_status_of_a_check_alone_shows_nothing_else(done: Path, cli: Cli) -> None:
    assert shown(cli, done / "run") == dict.fromkeys(["data", "surrogate", "retrain", "fidelity"], "complete")


def test_status_shows_pipeline_and_check_that_share_a_folder(
    done: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `run` has recorded says nothing of the form of the check; brackets in the folder's name are no pattern."""
    monkeypatch.setattr(checks, "_QUICK", checks._QUICK[:1])  # the guide on surrogates runs them all
    run_dir = tmp_path / "run"
    shutil.copytree(done / "run", run_dir)
    config = load(done / "config.yaml", ["fidelity.compared=null"])
    run(checks.quick(config), run_dir, FIDELITY_STAGES, progress=Silent())
    run(config, run_dir, (*FIDELITY_STAGES[:2], STAGES[2]), progress=Silent())
    run_dir = run_dir.rename(tmp_path / "run[1]")
    states = shown(cli, run_dir)
    assert list(states) == [*(stage.name for stage in STAGES), "retrain", "fidelity"]
    begun = ["data", "surrogate", "influence", "retrain", "fidelity"]
    assert states == {name: "complete" if name in begun else "not run" for name in states}
    shutil.rmtree(run_dir / "retrain")
    assert shown(cli, run_dir)["fidelity"] == "out of date"
    shutil.rmtree(run_dir / "fidelity")
    assert list(shown(cli, run_dir)) == [stage.name for stage in STAGES]


def shown(cli: Cli, run_dir: Path) -> dict[str, str]:
    status, out, _ = cli("status", run_dir, "--json")
    assert status == 0
    return {row["stage"]: row["state"] for row in json.loads(out)}


def test_there_is_a_row_for_each_section_and_share(done: Path) -> None:
    table = pl.read_parquet(done / "run" / "fidelity" / "fidelity.parquet")
    kinds = [("valid", "cg"), ("train", "identity"), ("train", "own units"), ("valid", "own units")]
    assert table.sort("arm").select("risk", "solver").rows() == kinds
    for name in ("own", "test"):
        assert (table[f"{name}_low"] <= table[f"{name}_high"]).all()
        assert table[name].abs().max() <= 1  # type: ignore[operator]
        assert table[f"{name}_ceiling"].is_between(0, 1).all()
    facts = json.loads((done / "run" / "fidelity" / "manifest.json").read_text())["facts"]
    assert facts["leave_one_out_spearman"] > 0.98


def test_groups_share_out_the_users_and_hold_the_same_ones_in_every_part(done: Path) -> None:
    of_user: dict[str, int] = {}
    for part in PARTS:
        users = read_table(done / "run" / "data" / f"samples-{part}.parquet")["user_id"]
        groups = retraining.members(context(done), part)
        assert sorted(torch.cat(groups).tolist()) == list(range(len(users)))
        for group, index in enumerate(groups):
            assert all(of_user.setdefault(users[i], group) == group for i in index.tolist())


def test_training_again_on_everything_from_the_surrogates_own_seed_gives_the_surrogate(done: Path) -> None:
    """The retraining is the surrogate's own training, stopped at its best epoch."""
    from safetensors.torch import load_file

    (done / "again").mkdir()
    seed = context(done).config.seed
    retraining._train_again(retraining.Training(1.0, 0, seed), context(done), done / "again")
    again, first = (load_file(p / "model.safetensors") for p in (done / "again", done / "run" / "surrogate"))
    assert all(torch.allclose(again[name], first[name], atol=1e-6) for name in first)


def test_two_processes_come_to_the_same_tables(done: Path, tmp_path: Path) -> None:
    assert check(done / "config.yaml", tmp_path / "run", "fidelity.workers=2")["retrain"]
    for name in ("retrain/risks.parquet", "fidelity/fidelity.parquet"):
        one, two = (pl.read_parquet(folder / "run" / name) for folder in (done, tmp_path))
        assert_frame_equal(one.drop("seconds", strict=False), two.drop("seconds", strict=False), check_exact=True)


def test_nothing_runs_again_and_a_changed_list_of_sections_keeps_the_trainings(done: Path, tmp_path: Path) -> None:
    shutil.copytree(done / "run", tmp_path / "run")
    assert not any(check(done / "config.yaml", tmp_path / "run").values())
    assert not any(check(done / "config.yaml", tmp_path / "run", "fidelity.workers=5").values())
    ran = check(done / "config.yaml", tmp_path / "run", "fidelity.compared=[{risk: train}]")
    assert [stage for stage, again in ran.items() if again] == ["fidelity"]


def test_an_interrupted_check_goes_on_with_the_next_training(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[retraining.Training] = []
    real, most = retraining._train_again, 5

    def counted(training: retraining.Training, context: Context, out: Path) -> None:
        if len(trained) == most:
            raise KeyboardInterrupt
        trained.append(training)
        real(training, context, out)

    monkeypatch.setattr(retraining, "_train_again", counted)
    with pytest.raises(KeyboardInterrupt):
        check(done / "config.yaml", tmp_path / "run")
    most = 9  # in all: 4 subsets x 2 seeds, and another surrogate
    check(done / "config.yaml", tmp_path / "run")
    assert len(set(trained)) == len(trained) == 9
    assert_frame_equal(pl.read_parquet(tmp_path / "run" / "retrain" / "risks.parquet"), risks(done))


def test_the_quick_form_is_smaller() -> None:
    quick = checks.quick(Config()).fidelity
    assert quick.subsets < Config().fidelity.subsets
    assert quick.shares == [0.5]
    assert quick.compared == list(checks.COMPARED[: len(quick.compared or [])])
    assert checks.full(Config()).fidelity.compared == list(checks.COMPARED)


def test_sections_that_a_surrogate_does_not_allow_are_left_out() -> None:
    factors = Config.model_validate({"surrogate": {"kind": "mf"}})
    left = checks.sections(factors, checks.COMPARED)
    assert 0 < len(left) < len(checks.COMPARED)
    assert {section.solver.kind for section in left} == {"cg", "identity", "arnoldi"}
    assert checks.sections(Config(), checks.COMPARED) == list(checks.COMPARED)


def test_the_command_prints_the_table_and_json(done: Path) -> None:
    from typer.testing import CliRunner

    arguments = ["fidelity", str(done / "config.yaml"), "--run-dir", str(done / "run")]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "Linear datamodelling score" in shown.stdout
    assert "identity" in shown.stdout
    printed = CliRunner().invoke(app, [*arguments, "--json"])
    assert [row["solver"] for row in json.loads(printed.stdout)["rows"]].count("cg") == 1
