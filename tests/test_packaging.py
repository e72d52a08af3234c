"""What is published: the source distribution, and the wheel that is built from it, installed as a user would."""

import json
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
JUNK = {"__pycache__", ".hypothesis", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".venv", "runs", "dist"}


@dataclass(frozen=True)
class Built:
    """tree: what there was to pack; sources, files: what is in the source distribution and in the wheel; site: the
    folder into which the wheel is installed.
    """

    tree: set[str]
    sources: set[str]
    files: set[str]
    site: Path


def python(*arguments: object, cwd: Path, **environment: str) -> str:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """No network: the backend that builds is the one that is installed."""
    out, site = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("site")
    tree = kept("src") | kept("tests") | kept("examples")
    python("-m", "hatchling", "build", "-t", "sdist", "-d", out, cwd=ROOT)
    (archive,) = out.glob("*.tar.gz")
    offline = ("--no-deps", "--no-index", "--quiet", "--disable-pip-version-check")
    python("-m", "pip", "wheel", *offline, "--no-build-isolation", "-w", out, archive, cwd=out)
    (wheel,) = out.glob("*.whl")
    python("-m", "pip", "install", *offline, "--target", site, wheel, cwd=out)
    with tarfile.open(archive) as opened:
        sources = {name.partition("/")[2] for name in opened.getnames()}
    with zipfile.ZipFile(wheel) as opened:
        files = set(opened.namelist())
    return Built(tree, sources, files, site)


def kept(folder: str) -> set[str]:
    """The files below a folder of the repository, without what tools leave behind."""
    found = (path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file())
    return {path.as_posix() for path in found if not JUNK & set(path.parts)}


def test_the_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    package = {name.removeprefix("src/") for name in built.sources if name.startswith("src/")}
    read = {Path(name).suffix for name in package} - {".py"}
    assert read == {".jinja", ".css", ".js", ".yaml", ".typed"}
    assert {name for name in built.files if ".dist-info/" not in name} == package
    assert {name.partition(".dist-info/")[2] for name in built.files} >= {"METADATA", "licenses/LICENSE"}


def test_the_source_distribution_can_be_tested_and_holds_no_junk(built: Built) -> None:
    needed = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile", "constraints.txt", ".ci/run"}
    assert needed - built.sources == set()
    assert built.tree - built.sources == set()
    assert {name for name in built.sources if JUNK & set(Path(name).parts)} == set()


def test_the_metadata_is_that_of_the_project(built: Built, tmp_path: Path) -> None:
    code = (
        "import json, importlib.metadata as m; d = m.distribution('dealrec'); print(json.dumps({"
        "'at': str(d.locate_file('')), 'version': d.version, 'extras': d.metadata.get_all('Provides-Extra'),"
        "'python': d.metadata['Requires-Python'], 'licence': d.metadata['License-Expression'],"
        "'readme': d.metadata.get_payload(), 'scripts': [f'{s.name}={s.value}' for s in d.entry_points]}))"
    )
    found = json.loads(python("-c", code, cwd=tmp_path, PYTHONPATH=str(built.site)))
    assert Path(found["at"]) == built.site
    assert found["version"] == PROJECT["version"]
    assert set(found["extras"]) == set(PROJECT["optional-dependencies"])
    assert {"all", "demo", "export", "quantization", "tracking"} <= set(found["extras"])
    assert (found["python"], found["licence"]) == (">=3.11", "Apache-2.0")
    assert found["readme"].strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()
    assert found["scripts"] == ["dealrec=dealrec.cli:main"]


def test_the_installed_package_finds_its_own_files(
    built: Built, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    code = (
        "import sys, dealrec; from pathlib import Path; from dealrec.config.files import load\n"
        "folder = Path(dealrec.__file__).parent\n"
        "print(folder, load(folder / 'demo' / 'llm.yaml').select.budget)"
    )
    told = python("-c", code, cwd=tmp_path, PYTHONPATH=str(built.site)).split()
    assert Path(told[0]).parent == built.site
    assert int(told[1]) > 0
    config = write_config()
    for arguments in (["run", config, "--run-dir", "run", "--until", "data"], ["report", "run", "--out", "page.html"]):
        python("-m", "dealrec", *arguments, cwd=tmp_path, PYTHONPATH=str(built.site))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<style>" in page
    assert "<script>" in page
