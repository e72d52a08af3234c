"""The files behind a Python file: the user's own, however they are imported, and nothing that is installed."""

import sys
from pathlib import Path

import pytest

from dealrec.engine.python_files import imported_files


def written(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(path: Path) -> list[str]:
    return [file.relative_to(path.parent).as_posix() for file in imported_files(path)]


def test_imports_are_followed_through_packages_functions_and_circles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    written(
        tmp_path,
        main="import json\nimport torch\nfrom parts import layer\n\ndef late():\n    import near.deep.end\n",
        parts="from near.other import thing\nimport main\n",
        near__other="from . import beside\nfrom .deep import end\n",
        near__beside="thing = 1\n",
        near__deep__end="",
        near__deep__unused="",
        unused="",
    )
    (tmp_path / "near" / "__init__.py").touch()
    (tmp_path / "near" / "deep" / "__init__.py").touch()
    assert names(tmp_path / "main.py") == [
        "main.py",
        *("near/__init__.py", "near/beside.py", "near/deep/__init__.py", "near/deep/end.py", "near/other.py"),
        "parts.py",
    ]


@pytest.mark.parametrize("text", ["import json, numpy, torch.nn", "import nowhere_at_all", "this is no Python", ""])
def test_what_is_installed_or_absent_adds_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "main.py").write_text(text)
    assert names(tmp_path / "main.py") == ["main.py"]


def test_a_file_that_is_absent_is_returned_alone(tmp_path: Path) -> None:
    assert imported_files(tmp_path / "gone.py") == [tmp_path / "gone.py"]


def test_modules_beside_the_file_are_the_users_own(tmp_path: Path) -> None:
    """A file puts its own folder on the path when it runs, which is later."""
    written(tmp_path, main="import beside_the_file", beside_the_file="")
    assert names(tmp_path / "main.py") == ["main.py", "beside_the_file.py"]
