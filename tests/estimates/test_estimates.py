"""What a run would do and cost: the run directory is left alone, the counts are right, and real code is measured."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from filelock import FileLock

from dealrec.cli.tables import show_estimates
from dealrec.config import Config
from dealrec.config.files import load
from dealrec.engine.runner import LOCK, run
from dealrec.engine.stage import Silent
from dealrec.errors import ConfigError, DealrecError, RunDirectoryError
from dealrec.estimates import Estimate, Estimates, Plan, estimate
from dealrec.estimates.dry_run import planned
from dealrec.estimates.piece import Piece
from dealrec.estimates.scales import SAMPLES
from dealrec.stages.pipeline import stages as declared
from dealrec.stages.pipeline import stages_until
from tests.conftest import Cli, made_interactions, made_items, small_settings
from tests.stages.test_recommenders import SMALL_TIGER

STAGES = declared(Config.model_validate({"select": {"method": "dealrec"}, "pool": {"method": "influence-strata"}}))

pytestmark = pytest.mark.slow

Write = Callable[..., Path]
NAMES = [stage.name for stage in STAGES]
UNMEASURED = ["pool", "select", "export", "compare", "report"]  # they only compare numbers
TRAIN, BUDGET = 40, 6  # users with a training sample, and those that are selected


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny_llm: Path) -> Path:
    """The config of a small run."""
    import yaml

    folder = tmp_path_factory.mktemp("estimated")
    made_interactions().write_parquet(folder / "interactions.parquet")
    made_items().write_parquet(folder / "items.parquet")
    (folder / "config.yaml").write_text(yaml.safe_dump(small_settings(tiny_llm)))
    return folder / "config.yaml"


@pytest.fixture(scope="module")
def estimates(settings: Path) -> dict[str, Estimate]:
    """The estimate of a run from nothing."""
    return by_stage(estimate(load(settings), settings.parent / "nowhere"))


@pytest.fixture(scope="module")
def finished(settings: Path) -> Path:
    """The run itself."""
    run_dir = settings.parent / "run"
    run(load(settings), run_dir, STAGES, progress=Silent())
    return run_dir


def by_stage(whole: Estimates) -> dict[str, Estimate]:
    return {stage.stage: stage for stage in whole.stages}


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file but the lock, with what it holds and when it was written."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != LOCK)
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def plans(config: Config, run_dir: Path) -> dict[str, Plan]:
    return {stage.name: estimate.plan for stage, estimate, _ in planned(config, run_dir, STAGES)}


def test_every_stage_has_a_row_with_its_cost_or_the_reason_why_not(estimates: dict[str, Estimate]) -> None:
    assert list(estimates) == NAMES
    assert {stage.plan for stage in estimates.values()} == {Plan.WILL_RUN}
    for stage in estimates.values():
        if stage.seconds is None:
            assert stage.notes[0].startswith("not estimated:")
        else:
            assert stage.seconds >= 0
            assert stage.peak_memory_bytes is not None
            assert stage.at_most is None or stage.at_most >= stage.seconds
    assert [name for name, stage in estimates.items() if stage.seconds is None] == UNMEASURED


def test_the_figures_are_those_of_the_run(estimates: dict[str, Estimate], finished: Path) -> None:
    figures = {name: stage.figures for name, stage in estimates.items()}
    assert figures["surrogate"] == {"units": TRAIN, "epochs_at_most": 4}
    assert figures["influence"] == {"units": TRAIN, "iterations_assumed": 15, "iterations_at_most": 200}
    assert figures["effort"] == {"samples": 12}
    assert figures["finetune"] == {"arms": 2, "samples": BUDGET, "epochs": 1}
    assert figures["evaluate"] == {"arms": 3, "titles": 30, "loss_users": 10, "ranking_users": 4}


def test_a_real_run_takes_what_was_estimated(settings: Path, finished: Path, tmp_path: Path) -> None:
    """CPU seconds within a factor of two each way, as the machine may be busy; less than half a second is noise.

    All libraries have been imported, by the run that is finished.
    """
    work = ["surrogate.max_epochs=300", "surrogate.patience=300", "influence.solver.max_iter=15"]
    work += ["influence.solver.tol=1e-12", "influence.solver.allow_unconverged=true", "pool.size=40"]
    work += ["finetune.epochs=20", "evaluate.loss_users=40", "evaluate.ranking_users=40", "evaluate.beams=4"]
    work += ["evaluate.max_new_tokens=32"]
    config, run_dir = load(settings, work), tmp_path / "run"
    estimates = by_stage(estimate(config, run_dir, until="evaluate"))
    outcomes = run(config, run_dir, stages_until(config, "evaluate"), progress=Silent())
    costs = {outcome.stage: outcome.manifest.cpu_seconds for outcome in outcomes}
    estimated = {name: stage.cpu_seconds or 0.0 for name, stage in estimates.items()}
    ratios = {name: estimated[name] / cost for name, cost in costs.items() if cost > 0.5}
    assert len(ratios) >= 3
    assert all(1 / 2 < ratio < 2 for ratio in ratios.values()), ratios
    assert 1 / 1.5 < sum(estimated.values()) / sum(costs.values()) < 1.5


def test_a_small_training_is_of_the_samples_that_it_is_asked_for(
    settings: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids of some training samples have gaps, into which those of validation must not fall."""
    from dealrec import finetuning

    trained, train = list[int](), finetuning.train

    def spy(model: Any, samples: list[Any], **settings: Any) -> Any:
        trained.append(len(samples))
        return train(model, samples, **settings)

    monkeypatch.setattr(finetuning, "train", spy)
    piece = Piece(load(settings), tmp_path)
    for stage in STAGES:
        if stage.name in ("data", "warmstart"):
            piece.keep(stage, finished)
    piece.run(next(stage for stage in STAGES if stage.name == "finetune"), {SAMPLES: 5})
    assert trained == [5]


def test_the_run_directory_is_neither_made_nor_touched(settings: Path, finished: Path) -> None:
    assert not (settings.parent / "nowhere").exists()
    before = contents(finished)
    estimate(load(settings, ["select.budget=5", "pool.size=10"]), finished)
    assert contents(finished) == before


def test_what_is_up_to_date_shows_what_it_took(settings: Path, finished: Path) -> None:
    whole = estimate(load(settings), finished)
    assert {stage.plan for stage in whole.stages} == {Plan.UP_TO_DATE}
    manifest = json.loads((finished / "effort" / "manifest.json").read_text())
    effort = by_stage(whole)["effort"]
    assert (effort.seconds, effort.peak_memory_bytes) == (manifest["wall_seconds"], manifest["peak_memory_bytes"])
    assert (whole.to_do, whole.seconds, whole.at_most, whole.peak_memory_bytes) == ([], 0, None, None)


def test_a_changed_setting_measures_what_comes_after_it_alone(settings: Path, finished: Path) -> None:
    estimates = by_stage(estimate(load(settings, ["finetune.epochs=3"]), finished))
    assert [name for name, stage in estimates.items() if stage.plan is not Plan.UP_TO_DATE] == NAMES[
        NAMES.index("finetune") :
    ]
    assert estimates["finetune"].figures["epochs"] == 3


def test_units_that_are_there_are_not_counted(settings: Path, finished: Path) -> None:
    """A second training of each of two arms, of which the first is there."""
    finetune = by_stage(estimate(load(settings, ["finetune.seeds=2"]), finished, until="finetune"))["finetune"]
    assert (finetune.plan, finetune.figures["arms"]) == (Plan.RESUMES, 2)


def test_an_interrupted_stage_resumes_and_what_it_has_is_not_counted(
    settings: Path, finished: Path, tmp_path: Path
) -> None:
    """A run that was ended while the second arm was trained has the first one among its shards."""
    config, run_dir = load(settings), tmp_path / "run"
    shutil.copytree(finished, run_dir)
    for name in ("finetune", "evaluate", "report"):
        shutil.rmtree(run_dir / name)

    class Ended(Silent):
        def bar(self, label: str, total: int | None = None) -> Any:
            if label.startswith("finetune: random-0"):
                raise KeyboardInterrupt
            return super().bar(label, total)

    with pytest.raises(KeyboardInterrupt):
        run(config, run_dir, STAGES, progress=Ended())
    assert plans(config, run_dir)["finetune"] is Plan.RESUMES
    estimates = by_stage(estimate(config, run_dir, until="finetune"))
    assert estimates["finetune"].figures["arms"] == 1
    for changed in ("finetune.epochs=2", "pool.size=10"):  # its own setting, and one of a stage before it
        assert plans(load(settings, [changed]), run_dir)["finetune"] is Plan.WILL_RUN


def test_a_stage_at_work_is_running(settings: Path, finished: Path, tmp_path: Path) -> None:
    """While another process holds the run directory; once it is gone, the stage resumes or runs."""
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    (run_dir / "effort").rename(run_dir / "effort.part")
    with FileLock(run_dir / LOCK):
        held = plans(load(settings), run_dir)
    assert [name for name, plan in held.items() if plan is Plan.RUNNING] == ["effort"]
    assert held["select"] is Plan.WILL_RUN
    assert plans(load(settings), run_dir)["effort"] is Plan.WILL_RUN


def test_states_follow_a_partial_run(settings: Path, tmp_path: Path) -> None:
    config, run_dir = load(settings), tmp_path / "run"
    assert set(plans(config, run_dir).values()) == {Plan.WILL_RUN}
    run(config, run_dir, stages_until(config, "influence"), progress=Silent())
    ready = [name for name, plan in plans(config, run_dir).items() if plan is Plan.UP_TO_DATE]
    assert ready == ["data", "surrogate", "influence"]
    estimates = by_stage(estimate(config, run_dir, until="effort"))
    assert list(estimates) == NAMES[: NAMES.index("effort") + 1]


def test_measured_pieces_are_the_stages_own_code(settings: Path, tmp_path: Path) -> None:
    """What the stage refuses the estimate refuses, since it computes the same: a NaN in the LLM's weights."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = load(settings)
    model: Any = AutoModelForCausalLM.from_pretrained(config.llm.model)
    next(model.parameters()).data.fill_(float("nan"))
    model.save_pretrained(tmp_path / "broken")
    AutoTokenizer.from_pretrained(config.llm.model).save_pretrained(tmp_path / "broken")
    broken = load(settings, [f"llm.model={tmp_path / 'broken'}"])
    with pytest.raises(DealrecError, match="effort: the gradient norm is NaN"):
        estimate(broken, tmp_path / "run", until="effort")


@pytest.mark.parametrize(
    ("override", "message"),
    [("select.budget=41", "above the 40 training samples"), ("pool.size=3", "above the 3 candidates")],
)
def test_what_validate_refuses_is_refused(settings: Path, tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        estimate(load(settings, [override]), tmp_path / "run")


def test_a_folder_of_something_else_is_refused_as_by_a_run(settings: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("mine")
    with pytest.raises(RunDirectoryError, match="not of a run"):
        estimate(load(settings), tmp_path)
    with pytest.raises(RunDirectoryError, match="is no directory"):
        estimate(load(settings), tmp_path / "photo.jpg")


@pytest.mark.parametrize("name", ["photo.jpg/run", "x" * 300], ids=["below a file", "too long"])
def test_a_folder_that_cannot_be_made_is_refused_as_by_a_run(
    settings: Path, tmp_path: Path, cli: Cli, name: str
) -> None:
    (tmp_path / "photo.jpg").write_text("mine")
    refused = [cli("run", settings, "--run-dir", tmp_path / name, *more) for more in ([], ["--dry-run"])]
    assert refused[0] == refused[1]
    assert refused[0][2].startswith("error: Cannot use ")


@pytest.mark.parametrize("name", ["", "inner/x"])
def test_a_folder_that_cannot_be_read_or_written_is_refused(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A system that grants nothing, since whoever runs the tests may be granted everything."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(RunDirectoryError, match=r"Cannot use .*: Permission denied"):
        estimate(load(settings), tmp_path / name)


@pytest.mark.parametrize(
    "solver",
    [
        {"kind": "lissa", "depth": 30},
        {"kind": "lissa", "depth": 30, "damping": 0.01, "scale": 1.0, "allow_unconverged": True},
        {"kind": "arnoldi", "rank": 5},
        {"kind": "arnoldi", "rank": 5, "damping": 1e-4},
        {"kind": "ekfac"},
        {"kind": "identity"},
        {"kind": "cg", "damping": 1e-6},
    ],
    ids=str,
)
def test_every_solver_is_measured(settings: Path, tmp_path: Path, solver: dict[str, Any]) -> None:
    """On a surrogate that has hardly learnt, where a small damping would not do."""
    overrides = [f"influence.solver={json.dumps(solver)}", "influence.parameters=[last-block]"]
    influence = estimate(load(settings, overrides), tmp_path / "run", until="influence").stages[-1]
    assert influence.seconds is not None
    assert (influence.at_most is None) == (solver["kind"] != "cg")


def test_a_warm_start_and_early_stopping_are_counted(write_config: Write, tmp_path: Path) -> None:
    path = write_config(
        data={"warm_share": 0.5},
        warmstart={"epochs": 2, "batch_size": 4, "micro_batch_size": 2, "warmup_share": 0.5},
        finetune={"patience": 1, "validation_samples": 5, "epochs": 3},
    )
    estimates = by_stage(estimate(load(path), tmp_path / "run", until="finetune"))
    run(load(path), tmp_path / "run", stages_until(load(path), "data"), progress=Silent())
    warm = len(pl.read_parquet(tmp_path / "run" / "data" / "samples-warm.parquet"))
    assert estimates["warmstart"].figures == {"titles": 30, "samples": warm, "epochs": 2}
    assert estimates["finetune"].at_most == estimates["finetune"].seconds
    assert estimates["finetune"].figures["validation_samples"] == 5
    assert "all 3 epochs are counted; early stopping (finetune.patience)" in estimates["finetune"].notes[0]


def test_tiger(write_config: Write, tmp_path: Path, text_encoder: Path) -> None:
    path = write_config(
        recommender="tiger",
        tiger={**SMALL_TIGER, "text_encoder": str(text_encoder)},
        data={"warm_share": 0.5},
        effort={"pool": 12},
        evaluate={"batch_size": 3},
    )
    estimates = by_stage(estimate(load(path), tmp_path / "run"))
    assert list(estimates) == NAMES
    assert estimates["warmstart"].figures["epochs_at_most"] == 2
    assert [name for name, stage in estimates.items() if stage.seconds is None] == UNMEASURED
    run(load(path), tmp_path / "run", stages_until(load(path), "finetune"), progress=Silent())
    for changed in ("finetune.epochs=2", "evaluate.beams=3"):  # what is there reads the whole catalogue
        assert by_stage(estimate(load(path, [changed]), tmp_path / "run"))["evaluate"].seconds is not None


@pytest.mark.parametrize("method", ["dealrec", "both-loss-drops"])
def test_data_that_are_larger_than_a_small_run(write_config: Write, tmp_path: Path, method: str) -> None:
    """More samples than signals are computed of in small, and more titles than are read."""
    path = write_config(select={"method": method, "budget": 40}, pool={"size": 0.2})
    made_interactions(users=700, items=400).write_parquet(tmp_path / "interactions.parquet")
    made_items(items=400).write_parquet(tmp_path / "items.parquet")
    estimates = by_stage(estimate(load(path), tmp_path / "run"))
    assert estimates["evaluate"].figures["titles"] == 400
    assert [name for name, stage in estimates.items() if stage.seconds is None] == UNMEASURED


def test_batches_that_fit_a_memory_are_chosen_as_the_stage_does(settings: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_memory is 1 MiB, but a single sample takes"):
        estimate(load(settings, ["effort.batch_memory=1"]), tmp_path / "run", until="effort")


def row(stage: str, seconds: float | None, at_most: float | None = None, plan: Plan = Plan.WILL_RUN) -> Estimate:
    return Estimate(stage, plan, seconds=seconds, at_most=at_most)


def test_the_total_is_of_what_is_to_come_and_bounded_where_a_stage_is() -> None:
    done = row("data", 100.0, plan=Plan.UP_TO_DATE)
    plain, bounded, unknown = row("effort", 2.0), row("surrogate", 3.0, 5.0), row("report", None)

    def total(*rows: Estimate) -> tuple[float, float | None]:
        run = Estimates(list(rows), 0.0, "cpu", 1, ())
        return run.seconds, run.at_most

    assert total(done, plain, bounded, unknown) == (2 + 3, 2 + 5)
    assert total(done, plain, unknown) == (2, None)
    assert total(done) == (0, None)
    assert Estimates([plain, bounded, done], 0.0, "cpu", 1, ()).until("surrogate").seconds == 2 + 3


@pytest.mark.parametrize(
    ("seconds", "at_most", "shown"),
    [
        (3.0, None, "3.0 s"),
        (3.0, 3.0, "up to about 3.0 s"),
        (3.0, 180.0, "3.0 s, up to about 3.0 min"),
        (0.01, 0.01, "0.0 s"),
    ],
)
def test_a_bound_is_shown_as_an_estimate(
    seconds: float, at_most: float | None, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show_estimates(Estimates([row("surrogate", seconds, at_most)], 0.0, "cpu", 1, ()), Path("run"), as_json=False)
    line = next(line for line in capsys.readouterr().out.splitlines() if "surrogate" in line)
    assert [cell.strip() for cell in line.split("│")][4] == shown


def test_the_command_shows_a_table_and_makes_nothing(settings: Path, tmp_path: Path, cli: Cli) -> None:
    status, out, err = cli("run", settings, "--run-dir", tmp_path / "run", "--until", "influence", "--dry-run")
    assert status == 0, err
    assert not (tmp_path / "run").exists()
    for word in ("will run", "epochs at most 4", "iterations assumed 15", "up to about", "MiB", "early stopping"):
        assert word in out
    assert "effort" not in out
    assert "The training file" not in out
    assert "the future leaks into training" in err
    messages = [line for line in err.splitlines() if line.endswith("...")]
    measured = ["reading the data ...", "measuring a piece of surrogate ...", "measuring a piece of influence ..."]
    assert messages == measured


def test_the_table_tells_what_is_past_from_what_is_to_come(settings: Path, finished: Path, cli: Cli) -> None:
    _, out, _ = cli("run", settings, "--run-dir", finished, "--set", "select.budget=5", "--dry-run")
    lines = {line.split()[1]: line for line in out.splitlines() if line.startswith("│")}
    for name in NAMES[: NAMES.index("select")]:
        assert "(took " in lines[name]
        assert " MiB)" in lines[name]
    for name in (*NAMES[NAMES.index("select") :], "all"):
        assert "took" not in lines[name]
    assert out.count("The training file, up to export: ") == 1
    assert "--until export" in out


@pytest.mark.parametrize("until", ["export", "influence"])
def test_a_run_that_ends_with_the_training_file_shows_one_total(
    settings: Path, finished: Path, cli: Cli, until: str
) -> None:
    _, out, _ = cli("run", settings, "--run-dir", finished, "--set", "seed=4", "--until", until, "--dry-run")
    assert "The training file" not in out


def test_the_command_gives_json(settings: Path, finished: Path, cli: Cli) -> None:
    status, out, _ = cli("run", settings, "--run-dir", finished, "--set", "finetune.epochs=2", "--dry-run", "--json")
    assert status == 0
    output = json.loads(out)
    assert [row["stage"] for row in output["stages"]] == NAMES
    assert [row["plan"] for row in output["stages"]].count("up to date") == NAMES.index("finetune")
    to_do = [row for row in output["stages"] if row["plan"] == "will run"]
    assert output["total"]["seconds"] == pytest.approx(sum(row["seconds"] or 0 for row in to_do))
    assert output["probe_seconds"] > 0


def test_the_command_refuses_in_one_line(settings: Path, tmp_path: Path, cli: Cli) -> None:
    status, out, err = cli("run", settings, "--run-dir", tmp_path / "run", "--set", "select.budget=41", "--dry-run")
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: select.budget is 41")
