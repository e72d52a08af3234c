"""The runner on toy stages: what runs again, what survives a kill, what is refused."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dealrec.config import Config
from dealrec.engine.manifest import read_manifest
from dealrec.engine.runner import LOCK, Outcome, State, run, states
from dealrec.engine.stage import Context, Silent, Stage
from dealrec.errors import RunDirectoryError
from dealrec.stages.pipeline import stages as declared

calls: list[str] = []


def first(context: Context) -> None:
    calls.append("first")
    (context.out / "a.txt").write_text(f"seed {context.config.seed}")
    (context.out / "b.txt").write_text("always the same")


def second(context: Context) -> None:
    calls.append("second")
    (context.out / "c.txt").write_text(context.input("first/a.txt").read_text() + "!")


def third(context: Context) -> None:
    calls.append("third")
    (context.out / "d.txt").write_text(context.input("first/b.txt").read_text())


PIPELINE = declared(Config.model_validate({"select": {"method": "dealrec"}, "pool": {"method": "influence-strata"}}))
STAGES = (
    Stage("first", 1, first, settings=("seed",)),
    Stage("second", 1, second, ("first/a.txt",), ("select.budget",)),
    Stage("third", 1, third, ("first/b.txt",)),
)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    calls.clear()
    yield
    calls.clear()


def go(run_dir: Path, config: Config | None = None, stages: tuple[Stage, ...] = STAGES) -> list[Outcome]:
    calls.clear()
    return run(config or Config(), run_dir, stages, progress=Silent())


def with_budget(budget: int) -> Config:
    return Config.model_validate({"select": {"budget": budget}})


def test_running_again_does_nothing(tmp_path: Path) -> None:
    go(tmp_path / "run")
    assert calls == ["first", "second", "third"]
    outcomes = go(tmp_path / "run")
    assert calls == []
    assert [outcome.ran for outcome in outcomes] == [False, False, False]


def test_a_changed_setting_runs_what_depends_on_it_and_only_that(tmp_path: Path) -> None:
    go(tmp_path / "run")
    go(tmp_path / "run", with_budget(7))
    assert calls == ["second"]


def test_an_unchanged_output_spares_what_depends_on_it(tmp_path: Path) -> None:
    go(tmp_path / "run")
    go(tmp_path / "run", Config(seed=5))
    assert calls == ["first", "second"]  # b.txt came out as before, so the third stage has nothing to do
    assert (tmp_path / "run" / "second" / "c.txt").read_text() == "seed 5!"


def test_a_raised_version_runs_the_stage_again(tmp_path: Path) -> None:
    go(tmp_path / "run")
    go(tmp_path / "run", stages=(STAGES[0], replace(STAGES[1], version=2), STAGES[2]))
    assert calls == ["second"]


@pytest.mark.parametrize("damage", ["delete", "truncate", "manifest"])
def test_a_damaged_output_is_made_again(tmp_path: Path, damage: str) -> None:
    go(tmp_path / "run")
    target = tmp_path / "run" / "second" / ("manifest.json" if damage == "manifest" else "c.txt")
    target.write_text("{") if damage != "delete" else target.unlink()
    go(tmp_path / "run")
    assert calls == ["second"]


def test_a_changed_outside_file_runs_again_and_a_moved_one_does_not(tmp_path: Path) -> None:
    source = tmp_path / "source.txt"
    source.write_text("one")
    here = [source]
    stages = (replace(STAGES[0], outside=lambda _config: list(here)),)
    go(tmp_path / "run", stages=stages)
    here[0] = source.rename(tmp_path / "moved.txt")
    go(tmp_path / "run", stages=stages)
    assert calls == []
    here[0].write_text("two")
    go(tmp_path / "run", stages=stages)
    assert calls == ["first"]


def test_a_failing_stage_leaves_the_earlier_result(tmp_path: Path) -> None:
    go(tmp_path / "run")

    def fails(context: Context) -> None:
        (context.out / "c.txt").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        go(tmp_path / "run", with_budget(9), (STAGES[0], replace(STAGES[1], run=fails)))
    assert (tmp_path / "run" / "second" / "c.txt").read_text() == "seed 0!"
    found = {stage.name: state for stage, state, _ in states(Config(), tmp_path / "run", STAGES)}
    assert found["second"] == State.COMPLETE  # under the settings that made it


def test_shards_survive_a_failure_and_go_with_the_end(tmp_path: Path) -> None:
    made: list[int] = []

    def sharded(context: Context) -> None:
        for number in range(3):
            if not context.shard(str(number)).exists():
                made.append(number)
                context.shard(str(number)).write_text("done")
                if len(made) == 2:
                    raise ValueError("killed")
        (context.out / "all.txt").write_text("done")

    stages = (Stage("sharded", 1, sharded, settings=("seed",)),)
    with pytest.raises(ValueError, match="killed"):
        go(tmp_path / "run", stages=stages)
    go(tmp_path / "run", stages=stages)
    assert made == [0, 1, 2]
    assert not (tmp_path / "run" / "sharded" / "shards").exists()


def test_shards_of_other_settings_are_not_taken(tmp_path: Path) -> None:
    def fails(context: Context) -> None:
        assert not context.shard("0").exists()
        context.shard("0").write_text("done")
        raise ValueError("killed")

    stages = (Stage("sharded", 1, fails, settings=("seed",)),)
    for seed in (1, 2):
        with pytest.raises(ValueError, match="killed"):
            go(tmp_path / "run", Config(seed=seed), stages)


def test_killed_between_the_two_renames_of_publishing(tmp_path: Path) -> None:
    go(tmp_path / "run")
    finished = tmp_path / "run" / "second"
    finished.rename(tmp_path / "run" / "second.old")  # the new one stands complete in .part, or was never begun
    go(tmp_path / "run")
    assert calls == []
    assert sorted(path.name for path in (tmp_path / "run").glob("second*")) == ["second"]


def test_killed_after_the_manifest_and_before_publishing(tmp_path: Path) -> None:
    go(tmp_path / "run")
    (tmp_path / "run" / "second").rename(tmp_path / "run" / "second.part")
    go(tmp_path / "run")
    assert calls == []
    assert read_manifest(tmp_path / "run" / "second") is not None


def test_an_undeclared_input_cannot_be_read(tmp_path: Path) -> None:
    def sneaks(context: Context) -> None:
        context.input("first/b.txt")

    with pytest.raises(KeyError, match="not among the declared inputs"):
        go(tmp_path / "run", stages=(STAGES[0], replace(STAGES[1], run=sneaks)))


def test_a_run_directory_in_use_is_refused(tmp_path: Path) -> None:
    from filelock import FileLock

    run_dir = tmp_path / "run"
    run_dir.mkdir()
    with FileLock(run_dir / LOCK), pytest.raises(RunDirectoryError, match="in use by another process"):
        go(run_dir)
    assert calls == []


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("mine")
    with pytest.raises(RunDirectoryError, match="not of a run"):
        go(tmp_path)


@pytest.mark.parametrize("there", ["config.json", "input/table.parquet", ".lock"])
def test_a_project_that_resembles_a_run_is_refused_and_kept(tmp_path: Path, there: str) -> None:
    for name in (there, "first/precious.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    with pytest.raises(RunDirectoryError, match="not of a run"):
        go(tmp_path)
    assert (tmp_path / "first" / "precious.txt").read_text() == "mine"


def test_a_foreign_folder_within_a_run_is_refused_and_kept(tmp_path: Path) -> None:
    go(tmp_path / "run", stages=STAGES[1:1])
    (tmp_path / "run" / "first").mkdir()
    (tmp_path / "run" / "first" / "precious.txt").write_text("mine")
    with pytest.raises(RunDirectoryError, match="not of a run"):
        go(tmp_path / "run")
    assert (tmp_path / "run" / "first" / "precious.txt").exists()


def test_a_place_that_cannot_be_written_to_is_refused() -> None:
    with pytest.raises(RunDirectoryError, match="Choose another"):
        go(Path("/proc/nowhere/run"))


def test_what_shows_the_manifests_runs_when_any_stage_ran(tmp_path: Path) -> None:
    stages = (*STAGES, Stage("page", 1, lambda _context: None, ("third",), reads_manifests=True))
    go(tmp_path / "run", stages=stages)
    assert [outcome.ran for outcome in go(tmp_path / "run", stages=stages)] == [False] * 4
    assert [outcome.ran for outcome in go(tmp_path / "run", with_budget(8), stages)] == [False, True, False, True]


def test_a_file_in_place_of_the_run_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(RunDirectoryError, match="Choose another"):
        go(tmp_path / "run")


def test_states_tell_what_a_changed_setting_outdates(tmp_path: Path) -> None:
    go(tmp_path / "run")
    found = {stage.name: state for stage, state, _ in states(Config(seed=5), tmp_path / "run", STAGES)}
    assert found["first"] == State.OUTDATED


def test_refused_settings_do_not_replace_the_recorded_ones(tmp_path: Path) -> None:
    from dealrec.engine.runner import recorded_config
    from dealrec.errors import ConfigError

    go(tmp_path / "run")

    def refuse(_config: Config, _run_dir: Path) -> None:
        raise ConfigError("too much", "Ask for less.")

    with pytest.raises(ConfigError):
        go(tmp_path / "run", with_budget(9), (replace(STAGES[0], after=refuse),))
    assert recorded_config(tmp_path / "run", Config) == Config()


def test_states_tell_a_run_that_goes_on_from_one_that_was_interrupted(tmp_path: Path) -> None:
    seen: list[State] = []

    def looks(context: Context) -> None:
        seen.extend(state for stage, state, _ in states(Config(), tmp_path / "run", STAGES) if stage.name == "second")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        go(tmp_path / "run", stages=(STAGES[0], replace(STAGES[1], run=looks)))
    seen.extend(state for stage, state, _ in states(Config(), tmp_path / "run", STAGES) if stage.name == "second")
    assert seen == [State.RUNNING, State.PARTIAL]


def test_asking_for_states_makes_no_folder(tmp_path: Path) -> None:
    assert [state for _, state, _ in states(Config(), tmp_path / "run", STAGES)] == [State.MISSING] * len(STAGES)
    assert not (tmp_path / "run").exists()


def test_a_stage_that_an_earlier_run_has_left_unfinished_is_not_at_work(tmp_path: Path) -> None:
    seen: dict[str, State] = {}

    def killed(_context: Context) -> None:
        raise RuntimeError("killed")

    def looks(_context: Context) -> None:
        seen.update({stage.name: state for stage, state, _ in states(Config(), tmp_path / "run", STAGES)})

    with pytest.raises(RuntimeError):
        go(tmp_path / "run", stages=(STAGES[0], replace(STAGES[1], run=killed)))
    shutil.rmtree(tmp_path / "run" / "first")
    with pytest.raises(RuntimeError):  # of the second again
        go(tmp_path / "run", stages=(replace(STAGES[0], run=looks), replace(STAGES[1], run=killed)))
    assert (seen["first"], seen["second"]) == (State.RUNNING, State.PARTIAL)


def test_settings_of_another_recommender_outdate_nothing() -> None:
    from dealrec.engine.settings import recorded

    ours, theirs = Config(), Config.model_validate({"tiger": {"max_items": 3}})
    assert [recorded(ours, stage.settings) for stage in PIPELINE] == [
        recorded(theirs, stage.settings) for stage in PIPELINE
    ]
    warm = {"recommender": "tiger", "data": {"warm_share": 0.5}}
    tiger = [Config.model_validate(warm | {"tiger": {"max_items": most}}) for most in (3, 4)]
    effort = next(stage for stage in PIPELINE if stage.name == "effort")
    assert recorded(tiger[0], effort.settings) != recorded(tiger[1], effort.settings)
