"""Disks that are full or read-only end a command in one line, and leave what stood there."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dealrec.config.files import load
from dealrec.engine.runner import run
from dealrec.engine.stage import Silent
from dealrec.stages import validation
from dealrec.stages.pipeline import stages_until
from tests.conftest import Cli, made_interactions, made_items

Write = Callable[..., Path]


def refusing(code: int, ending: str, write: Callable[..., int]) -> Callable[..., int]:
    """`Path.write_text` of a disk that refuses files with that ending."""

    def write_text(path: Path, *rest: Any, **options: Any) -> int:
        if path.name.endswith(ending):
            path.touch()
            raise OSError(code, os.strerror(code), str(path))
        return write(path, *rest, **options)

    return write_text


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_report_that_cannot_be_written_leaves_the_one_before(
    write_config: Write, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    config = load(write_config())
    run(config, tmp_path / "run", stages_until(config, "data"), progress=Silent())
    page = tmp_path / "run" / "report.html"
    assert cli("report", tmp_path / "run")[0] == 0
    before = page.read_text()
    monkeypatch.setattr(Path, "write_text", refusing(code, ".html.tmp", Path.write_text))
    status, _, err = cli("report", tmp_path / "run")
    assert status == 2
    assert os.strerror(code) in err
    assert "Free some space, or choose another place" in err
    assert len(err.strip().splitlines()) == 1
    assert page.read_text() == before
    assert list((tmp_path / "run").glob("*.tmp")) == []


def test_a_draft_on_a_full_disk_leaves_no_empty_config(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_interactions().write_parquet(tmp_path / "log.parquet")
    made_items().write_parquet(tmp_path / "items.parquet")
    monkeypatch.setattr(Path, "write_text", refusing(errno.ENOSPC, ".yaml.tmp", Path.write_text))
    files = (tmp_path / "log.parquet", tmp_path / "items.parquet")
    status, _, err = cli("init", *files, "--out", tmp_path / "c.yaml", "--llm", "x/y")
    assert status == 2
    assert "No space left on device" in err
    assert not (tmp_path / "c.yaml").exists()
    assert not (tmp_path / "c.yaml.tmp").exists()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/x']"), "Set TMPDIR"),
        (OSError(errno.ENOSPC, "No space left on device"), "(TMPDIR): No space left on device"),
    ],
)
def test_validate_without_room_for_temporary_files(
    write_config: Write, cli: Cli, monkeypatch: pytest.MonkeyPatch, error: OSError, told: str
) -> None:
    def refuse() -> None:
        raise error

    monkeypatch.setattr(validation, "TemporaryDirectory", refuse)
    status, _, err = cli("validate", write_config())
    assert status == 2
    assert told in err


def test_a_relative_run_directory_that_cannot_be_made(
    write_config: Write, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_config()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ro").mkdir()
    make = Path.mkdir

    def mkdir(folder: Path, *rest: Any, **options: Any) -> None:
        if folder.name == "run":
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        make(folder, *rest, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    status, _, err = cli("run", path, "--run-dir", "ro/run")
    assert status == 2
    assert "Cannot use ro/run: Permission denied" in err
