"""Settings from YAML and back."""

from pathlib import Path

import pytest
import yaml

from dealrec.config import Config
from dealrec.config.files import commented, load, parse
from dealrec.config.solvers import CGConfig
from dealrec.errors import ConfigError


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: {interactions: logs/i.csv}\nllm: {model: ./model}\n")
    config = load(tmp_path / "config.yaml")
    assert config.data.interactions == tmp_path / "logs" / "i.csv"
    assert config.llm.model == str(tmp_path / "model")


def test_paths_in_overrides_are_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "c.yaml").write_text("{}")
    (tmp_path / "mine.csv").write_text("here")
    monkeypatch.chdir(tmp_path)
    config = load(Path("configs/c.yaml"), ["data.interactions=mine.csv", "evaluate.ks=[20, 5, 20]"])
    assert config.data.interactions == tmp_path / "mine.csv"
    assert config.evaluate.ks == [5, 20]
    # Also what is not there, so that the error is of the place that was meant.
    assert load(Path("configs/c.yaml"), ["data.items=none.csv"]).data.items == tmp_path / "none.csv"
    assert load(Path("configs/c.yaml"), ["llm.model=org/name"]).llm.model == "org/name"


def test_a_file_that_begins_like_a_home_folder_is_a_file(tmp_path: Path) -> None:
    assert parse({"data": {"items": "~x.csv"}}, base=tmp_path).data.items == tmp_path / "~x.csv"
    assert parse({"data": {"items": "~/x.csv"}}, base=tmp_path).data.items == Path.home() / "x.csv"


def test_a_bar_is_a_separator_and_no_block_of_yaml(tmp_path: Path) -> None:
    config = parse({}, base=tmp_path, overrides=["data.columns.category=genre", "data.columns.category_separator=|"])
    assert config.data.columns.category_separator == "|"


def test_bad_yaml_is_said_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: [1\nb: 2\n")
    with pytest.raises(ConfigError, match=r"not valid YAML at line 2, column 2: expected ',' or '\]'"):
        load(tmp_path / "config.yaml")


def test_a_model_id_stays_one(tmp_path: Path) -> None:
    assert parse({"llm": {"model": "org/name"}}, base=tmp_path).llm.model == "org/name"


def test_every_key_has_a_comment() -> None:
    lines = [line.strip() for line in commented().splitlines() if line.strip()]
    for comment, key in zip(lines[::2], lines[1::2], strict=True):
        assert comment.startswith("# ")
        assert not key.startswith("#")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    given = {"fidelity": {"compared": [{"risk": "train"}]}, "data": {"columns": {"user": "a: \x85\u2028\ufeff'\"\\"}}}
    config = parse(given, base=tmp_path)
    (tmp_path / "config.yaml").write_text(commented(config))
    assert load(tmp_path / "config.yaml") == config


def test_only_the_settings_asked_for_are_written_with_their_notes() -> None:
    written = commented(keys=["seed", "data.columns", "select.budget"], notes={"select.budget": "why\nso"})
    raw = yaml.safe_load(written)
    assert (list(raw), list(raw["data"]), raw["select"]) == (["seed", "data", "select"], ["columns"], {"budget": 0.02})
    assert "  # why\\x0aso\n  budget: 0.02\n" in written


def test_overrides_are_yaml_values(tmp_path: Path) -> None:
    config = parse(
        {}, base=tmp_path, overrides=["evaluate.ks=[1, 3]", "influence.solver.damping=4", "select.budget=0.5"]
    )
    assert (config.evaluate.ks, config.influence.solver, config.select.budget) == ([1, 3], CGConfig(damping=4), 0.5)


def test_a_budget_of_one_sample_is_not_all_of_them(tmp_path: Path) -> None:
    assert isinstance(parse({"select": {"budget": 1}}, base=tmp_path).select.budget, int)
    assert isinstance(parse({"select": {"budget": 1.0}}, base=tmp_path).select.budget, float)


def test_a_round_trip_through_the_recorded_json_keeps_count_and_share(tmp_path: Path) -> None:
    for budget in (1, 1.0):
        config = parse({"select": {"budget": budget}}, base=tmp_path)
        again = Config.model_validate_json(config.model_dump_json())
        assert type(again.select.budget) is type(budget)


@pytest.mark.parametrize("text", ["a: [", "- 1", "just text"])
def test_what_is_not_a_config_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError):
        load(tmp_path / "config.yaml")
