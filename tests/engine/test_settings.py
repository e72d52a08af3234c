"""What a fingerprint holds of the settings: what deviates from the defaults, and nothing that is not read."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from dealrec.engine.manifest import FORMAT, MANIFEST
from dealrec.engine.run_directory import open_run
from dealrec.engine.runner import run, states
from dealrec.engine.settings import Settings, deviations, recorded
from dealrec.engine.stage import Context, Silent, Stage
from dealrec.errors import RunDirectoryError


class Solver(BaseModel):
    kind: str = "cg"
    steps: int = 10


class Before(Settings):
    solver: Solver = Solver()
    rate: float = 0.1


class After(Before):
    """A later version of the same settings."""

    later: int | None = 3
    solver: Any = Field({"kind": "cg", "steps": 10, "restart": False})


def fingerprinted(config: Settings, *names: str) -> dict[str, Any]:
    return deviations(recorded(config, names), type(config))


def test_settings_at_their_default_are_left_out() -> None:
    assert fingerprinted(Before(), "seed", "solver", "rate") == {}
    assert fingerprinted(Before(rate=0.2), "seed", "rate") == {"rate": 0.2}
    assert fingerprinted(Before(solver=Solver(steps=3)), "solver") == {"solver": {"steps": 3}}
    assert fingerprinted(Before(solver=Solver(steps=3)), "solver.kind") == {}
    assert fingerprinted(Before(solver=Solver(steps=3)), "solver.steps") == {"solver.steps": 3}


def test_a_setting_that_a_later_version_adds_changes_no_fingerprint() -> None:
    names = ("seed", "solver", "rate")
    changed = {"kind": "cg", "steps": 3, "restart": False}
    assert fingerprinted(After(), *names, "later") == fingerprinted(Before(), *names)
    assert fingerprinted(After(solver=changed), *names, "later") == fingerprinted(
        Before(solver=Solver(steps=3)), *names
    )
    assert fingerprinted(After(later=None), "later") == {"later": None}


def test_a_section_that_nothing_reads_is_left_out() -> None:
    class Chosen(Before):
        def unread_sections(self) -> frozenset[str]:
            return frozenset({"solver"})

    assert set(recorded(Chosen(), ("seed", "solver.kind", "rate"))) == {"seed", "rate"}


def test_a_run_directory_of_another_format_is_refused_in_words(tmp_path: Path) -> None:
    def write(context: Context) -> None:
        (context.out / "a.txt").write_text("a")

    stages = (Stage("first", 1, write),)
    run(Before(), tmp_path, stages, progress=Silent())
    manifest = tmp_path / "first" / MANIFEST
    manifest.write_text(manifest.read_text().replace(f'"format": {FORMAT}', '"format": 1'))
    with pytest.raises(RunDirectoryError, match=r"another version of dealrec \(format 1; this one has 2\)"):
        run(Before(), tmp_path, stages, progress=Silent())
    with pytest.raises(RunDirectoryError, match="another version of dealrec"):
        list(states(Before(), tmp_path, stages))
    with pytest.raises(RunDirectoryError, match="another version of dealrec"):
        open_run(tmp_path, stages, Before())
    assert (tmp_path / "first" / "a.txt").exists()
