"""`--json`: one JSON document on stdout and nothing else, of every command."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from dealrec.config import Config
from dealrec.config.files import parse
from dealrec.stages.pipeline import FIDELITY_STAGES
from dealrec.stages.pipeline import stages as declared
from tests.conftest import Cli, made_interactions, made_items, small_settings

STAGES = declared(Config.model_validate({"select": {"method": "dealrec"}, "pool": {"method": "influence-strata"}}))

Write = Callable[..., Path]
CHECK = {"subsets": 4, "shares": [0.5], "groups": 3, "surrogates": 2, "workers": 1, "compared": [{"risk": "valid"}]}


def strict(text: str) -> Any:
    """What a reader makes of it that knows no NaN; ValueError for that and for more than one document."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def printed(cli: Cli, *arguments: object) -> Any:
    status, out, err = cli(*arguments, "--json")
    assert status == 0, err
    return strict(out)


def every_command() -> list[str]:
    from typer.main import get_command

    from dealrec.cli.commands import app

    return sorted(get_command(app).commands)  # type: ignore[attr-defined]


def test_every_command_has_json(cli: Cli) -> None:
    for name in every_command():
        assert "--json" in cli(name, "--help")[1], name


@pytest.mark.parametrize("preset", [[], ["--preset", "reference"]])
def test_settings_as_json_are_the_settings(cli: Cli, tmp_path: Path, preset: list[str]) -> None:
    found = printed(cli, "config", *preset)
    commented = yaml.safe_load(cli("config", *preset)[1])
    assert parse(found, base=tmp_path) == parse(commented, base=tmp_path)
    assert Config.model_validate(found).seed == 0
    assert strict(cli("config", "--schema", "--json")[1])["title"] == "Config"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_llm: Path) -> Path:
    """A folder with a config, for the commands that follow each other."""
    folder = tmp_path_factory.mktemp("json")
    made_interactions().write_parquet(folder / "interactions.parquet")
    made_items().write_parquet(folder / "items.parquet")
    (folder / "config.yaml").write_text(yaml.safe_dump(small_settings(tiny_llm) | {"fidelity": CHECK}))
    return folder


@pytest.mark.slow
def test_commands_on_a_run(cli: Cli, finished: Path) -> None:
    config, run_dir = finished / "config.yaml", finished / "run"
    assert set(printed(cli, "validate", config)) == {"facts", "warnings"}
    assert printed(cli, "run", config, "--run-dir", run_dir)["results"]["arms"]
    assert [row["state"] for row in printed(cli, "status", run_dir)] == ["complete"] * len(STAGES)
    assert printed(cli, "export", run_dir, "--to", "jsonl")["samples"] == 6
    assert printed(cli, "report", run_dir)["page"] == str(run_dir / "report" / "report.html")
    other = shutil.copytree(run_dir, finished / "other")
    assert printed(cli, "report", "--compare", run_dir, other)["in_both"] == 6
    found = printed(cli, "init", finished, "--out", finished / "new.yaml")
    assert found["next"] == f"dealrec validate {finished / 'new.yaml'}"


@pytest.mark.slow
def test_fidelity(cli: Cli, finished: Path) -> None:
    found = printed(cli, "fidelity", finished / "config.yaml", "--run-dir", finished / "check")
    assert {row["solver"] for row in found["rows"]} == {"own units", "cg"}
    assert [row["state"] for row in printed(cli, "status", finished / "check")] == ["complete"] * len(FIDELITY_STAGES)


def test_a_refusal_prints_nothing_on_stdout(cli: Cli, tmp_path: Path) -> None:
    for arguments in (["status", tmp_path], ["init", tmp_path, "--out", tmp_path / "c.yaml"], ["validate", "no.yaml"]):
        status, out, err = cli(*arguments, "--json")
        assert (status, out) == (2, "")
        assert err.startswith("error: ")


def test_what_is_no_number_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    from dealrec.cli.json_output import print_json

    print_json({"a": float("nan"), "b": [{"c": (float("-inf"), 1.0)}], "d": Path("x")})
    assert strict(capsys.readouterr().out) == {"a": None, "b": [{"c": [None, 1.0]}], "d": "x"}
