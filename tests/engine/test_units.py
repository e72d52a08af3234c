"""Units of a stage: each is made once, and whatever fails after it, it is there for the next run."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dealrec.engine.manifest import MANIFEST, output_files, read_manifest
from dealrec.engine.runner import run
from dealrec.engine.settings import Settings
from dealrec.engine.stage import Context, Silent, Stage

calls: list[str] = []


class Study(Settings):
    """Settings of a pipeline that has nothing to do with recommendation."""

    arms: int = 2
    steps: int = 5
    level: float = 0.95


def draw(context: Context[Study]) -> None:
    for arm in range(context.config.arms):
        (context.out / f"{arm}.txt").write_text(f"arm {arm} of seed {context.config.seed}")


def train(context: Context[Study], after: Callable[[Context[Study]], None] = lambda _context: None) -> None:
    def fill(folder: Path, arm: int) -> None:
        calls.append(f"train {arm}")
        drawn = context.input(f"draw/{arm}.txt").read_text()
        (folder / "model.txt").write_text(f"{drawn}, {context.config.steps} steps")

    for arm in range(context.config.arms):
        context.unit(f"{arm}", partial(fill, arm=arm), without=("arms",), inputs=(f"draw/{arm}.txt",))
    after(context)


DRAW = Stage[Study]("draw", 1, draw, settings=("seed", "arms"))


def training(after: Callable[[Context[Study]], None] = lambda _context: None, version: int = 1) -> Stage[Study]:
    return Stage[Study]("train", version, lambda context: train(context, after), ("draw",), ("arms", "steps"))


def go(run_dir: Path, *, stage: Stage[Study] | None = None, **settings: Any) -> list[str]:
    """What was trained."""
    calls.clear()
    run(Study(**settings), run_dir, (DRAW, stage or training()), progress=Silent())
    return list(calls)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    calls.clear()


def fail(context: Context[Study]) -> None:
    (context.out / "half.txt").write_text("half")
    raise OSError(28, "No space left on device")


def test_what_is_finished_survives_a_failure_after_it(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="No space left"):
        go(tmp_path, stage=training(after=fail))
    assert go(tmp_path) == []
    assert not (tmp_path / "train" / "half.txt").exists()
    assert (tmp_path / "train" / "1" / "model.txt").read_text() == "arm 1 of seed 0, 5 steps"


def test_what_is_finished_survives_a_failure_while_it_is_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(path: Path) -> str:
        raise OSError(5, "Input/output error", str(path))

    from dealrec.engine import runner

    calls.clear()
    run(Study(), tmp_path, (DRAW,), progress=Silent())
    monkeypatch.setattr(runner, "file_hash", torn)
    with pytest.raises(Exception, match="Input/output error"):
        go(tmp_path)
    monkeypatch.undo()
    assert go(tmp_path) == []


def test_another_arm_makes_that_arm_alone(tmp_path: Path) -> None:
    assert go(tmp_path) == ["train 0", "train 1"]
    assert go(tmp_path, arms=4) == ["train 2", "train 3"]
    assert go(tmp_path, arms=1) == []
    assert [path.parent.name for path in output_files(tmp_path / "train")] == ["0"]


def test_settings_inputs_and_versions_that_change_a_unit_make_it_anew(tmp_path: Path) -> None:
    go(tmp_path)
    assert go(tmp_path, steps=6) == ["train 0", "train 1"]
    assert go(tmp_path, steps=6, seed=1) == ["train 0", "train 1"]  # the draws differ
    assert go(tmp_path, steps=6, seed=1, stage=training(version=2)) == ["train 0", "train 1"]
    assert (tmp_path / "train" / "0" / "model.txt").read_text() == "arm 0 of seed 1, 6 steps"


def test_a_unit_that_was_begun_is_gone_on_with_whatever_else_has_changed(tmp_path: Path) -> None:
    """Its scratch lies under what it alone is made from; a shard of the stage under all that that is made from."""

    def run_units(context: Context[Study], *, interrupted: bool) -> None:
        def fill(folder: Path, arm: int) -> None:
            scratch, shard = context.scratch("steps.txt"), context.shard("steps.txt")
            calls.extend(f"{arm} begins {'anew' if not path.exists() else 'where it was'}" for path in (scratch, shard))
            scratch.write_text("half")
            shard.write_text("half")
            if interrupted:
                raise OSError(28, "No space left on device")
            (folder / "model.txt").write_text("whole")

        for arm in range(context.config.arms):
            context.unit(f"{arm}", partial(fill, arm=arm), without=("arms",), inputs=(f"draw/{arm}.txt",))
        assert context.scratch("x") == context.shard("x")

    def stage(*, interrupted: bool) -> Stage[Study]:
        return Stage[Study]("train", 1, partial(run_units, interrupted=interrupted), ("draw",), ("arms", "steps"))

    with pytest.raises(Exception, match="No space left"):
        go(tmp_path, stage=stage(interrupted=True))
    assert go(tmp_path, arms=1, stage=stage(interrupted=False)) == ["0 begins where it was", "0 begins anew"]
    assert go(tmp_path, arms=1, steps=6, stage=stage(interrupted=False)) == ["0 begins anew"] * 2


def test_an_interruption_under_other_settings_deletes_nothing(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="No space left"):
        go(tmp_path, stage=training(after=fail))
    with pytest.raises(Exception, match="No space left"):
        go(tmp_path, stage=training(after=fail), steps=6)
    assert go(tmp_path) == []  # those of the first settings are there still


def test_a_damaged_unit_is_made_anew_and_the_others_are_kept(tmp_path: Path) -> None:
    go(tmp_path)
    (tmp_path / "train" / "1" / "model.txt").write_text("")
    assert go(tmp_path) == ["train 1"]
    assert (tmp_path / "train" / "0" / "model.txt").read_text() == "arm 0 of seed 0, 5 steps"


def test_a_complete_stage_holds_its_outcome_alone(tmp_path: Path) -> None:
    go(tmp_path)
    names = {path.name for path in (tmp_path / "train").iterdir()}
    assert names == {"0", "1", MANIFEST, "fingerprint"}
    manifest = read_manifest(tmp_path / "train")
    assert manifest is not None
    assert set(manifest.units) == {"0", "1"}
    assert not (tmp_path / "train.part").exists()


def test_without_hard_links_units_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_source: str, _target: str) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("os.link", refuse)
    assert go(tmp_path) == ["train 0", "train 1"]
    assert go(tmp_path, arms=3) == ["train 2"]
    assert (tmp_path / "train" / "0" / "model.txt").read_text() == "arm 0 of seed 0, 5 steps"


@pytest.mark.slow
def test_a_stage_costs_what_all_its_units_cost_whenever_they_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each training takes a second of the wall and two of the processor, by a clock that nothing else moves."""
    now = [0.0, 0.0]
    for module in ("stage", "measure"):
        monkeypatch.setattr(f"dealrec.engine.{module}.clock", lambda: tuple(now))

    def timed(context: Context[Study]) -> None:
        def fill(folder: Path) -> None:
            now[0] += 1
            now[1] += 2
            (folder / "model.txt").write_text("trained")

        for arm in range(context.config.arms):
            context.unit(f"{arm}", fill, without=("arms",), inputs=(f"draw/{arm}.txt",))
            if arm == 2 and not (tmp_path / "mended").exists():
                raise KeyboardInterrupt

    stage = Stage[Study]("train", 1, timed, ("draw",), ("arms",))

    def costs(arms: int) -> tuple[float, float, int]:
        go(tmp_path / "run", stage=stage, arms=arms)
        manifest = read_manifest(tmp_path / "run" / "train")
        assert manifest is not None
        assert set(manifest.unit_costs.values()) == {(1.0, 2.0)}
        return manifest.wall_seconds, manifest.cpu_seconds, len(manifest.unit_costs)

    assert costs(1) == (1, 2, 1)
    assert costs(2) == (2, 4, 2)
    with pytest.raises(KeyboardInterrupt):
        costs(4)
    (tmp_path / "mended").touch()
    assert costs(4) == (4, 8, 4)
    assert now == [4, 8]
    assert costs(1) == (1, 2, 1)
