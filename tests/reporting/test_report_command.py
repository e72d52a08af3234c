"""`dealrec report`: one run, two runs, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dealrec.columns import HISTORY, SAMPLE, TARGET, USER
from dealrec.config import Config
from dealrec.engine.manifest import read_manifest, write_manifest
from dealrec.reporting.two_runs import Overlap, content, match, matched_pair, overlap
from tests.reporting.made import made_run, opened_run

PAPER = {"select": {"method": "dealrec"}, "pool": {"method": "influence-strata"}}

SIZES: dict[str, Any] = {"samples": 200, "items": 40, "budget": 20, "pool": 80}
OTHER = Config.model_validate({**PAPER, "select": {"effort_weight": 2.0, "strata": 7}})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made_run(tmp_path / "first", Config.model_validate(PAPER), **SIZES)


@pytest.mark.slow
def test_the_page_is_written_again_and_its_path_printed(cli: Any, run: Path, tmp_path: Path) -> None:
    assert cli("report", run)[:2] == (0, f"{run / 'report.html'}\n")
    source = (run / "report.html").read_text()
    assert cli("report", run, "--out", tmp_path / "new" / "page.html")[0] == 0
    assert (tmp_path / "new" / "page.html").read_text() == source
    # Over the page of the report stage, which stays complete.
    data = read_manifest(run / "data")
    assert data is not None
    (run / "report").mkdir()
    (run / "report" / "report.html").write_text("old")
    write_manifest(run / "report", data.model_copy(update={"outputs": {}, "sizes": {"report.html": 3}}))
    status, out, _ = cli("report", run, "--json")
    found = json.loads(out)
    assert (status, found["page"]) == (0, str(run / "report" / "report.html"))
    assert [note["name"] for note in found["warnings"]] == ["Uncovered: ranges of the overall score"]
    assert (run / "report" / "report.html").read_text() == source
    assert read_manifest(run / "report") is not None


def test_two_runs_side_by_side(cli: Any, run: Path, tmp_path: Path) -> None:
    other = made_run(tmp_path / "second", OTHER, **SIZES)
    status, out, _ = cli("report", "--compare", run, other)
    assert (status, out) == (0, f"{run / 'compared-with-second.html'}\n")
    status, out, _ = cli("report", "--compare", run, other, "--json", "--out", tmp_path / "page.html")
    found = json.loads(out)
    ids = [set(pl.read_parquet(one / "select" / "selected.parquet")[SAMPLE]) for one in (run, other)]
    both = len(ids[0] & ids[1])
    assert found["in_both"] == both
    assert found["jaccard"] == pytest.approx(both / len(ids[0] | ids[1]))
    assert found["in_both_by_chance"] == pytest.approx(20 * 20 / 200)
    assert found["settings"] == {"select.effort_weight": ["0.3", "2.0"], "select.strata": ["50", "7"]}
    assert found["spearman"]["influence"] == {"n": 200, "value": pytest.approx(1.0)}
    assert found["spearman"]["effort"]["n"] == 80
    page = (tmp_path / "page.html").read_text()
    assert page == (run / "compared-with-second.html").read_text()
    for said in ("the training samples are the same", "selected by second", "select.strata", "better than Random"):
        assert said in page


def test_a_run_beside_itself_differs_in_nothing(run: Path) -> None:
    shown = content(
        matched_pair(opened_run(run, Config.model_validate(PAPER)), opened_run(run, Config.model_validate(PAPER)))
    )
    assert shown["settings"] == []
    assert shown["overlap"] == Overlap(20, 20, 20, 2.0)
    assert [one.spearman for one in shown["correlations"]] == pytest.approx([1.0, 1.0, 1.0])


def test_samples_of_other_data_are_matched_by_what_they_say(tmp_path: Path, run: Path) -> None:
    first = pl.DataFrame({SAMPLE: [0, 1, 2], USER: [7, 8, 9], HISTORY: [[1], [1, 2], [3]], TARGET: [2, 3, 4]})
    second = pl.DataFrame({SAMPLE: [4, 5, 6], USER: ["9", "8", "7"], HISTORY: [[3], [1, 2], [12]], TARGET: [4, 9, 2]})
    assert match(first, second).rows() == [(2, 4)]
    other = made_run(tmp_path / "second", Config.model_validate(PAPER), **{**SIZES, "samples": 150})
    pair = matched_pair(opened_run(run, Config.model_validate(PAPER)), opened_run(other, Config.model_validate(PAPER)))
    assert not pair.same_samples
    assert overlap(pair).both <= len(pair.matched)
    assert content(pair)["spreads"] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], ["nowhere is not a run directory", "dealrec run CONFIG"]),
        (["a", "b"], ["A report is of one run directory, not 2", "--compare"]),
        (["--compare", "a"], ["--compare takes two run directories, not 1"]),
    ],
)
def test_refusals(cli: Any, arguments: list[str], words: list[str]) -> None:
    status, out, err = cli("report", *arguments)
    assert (status, out) == (2, "")
    assert all(word in err for word in words)


def test_settings_of_another_version_are_named(cli: Any, run: Path) -> None:
    (run / "config.json").write_text('{"seed": 0, "gone": 1}')
    status, _, err = cli("report", run)
    assert status == 2
    assert "settings that this version of dealrec does not know" in err.replace("\n", " ")


def test_a_run_without_a_selection_cannot_be_compared(cli: Any, run: Path, tmp_path: Path) -> None:
    other = made_run(tmp_path / "second", OTHER, **SIZES)
    (other / "select" / "manifest.json").unlink()
    status, _, err = cli("report", "--compare", run, other)
    assert status == 2
    assert "second holds no selection to compare" in err.replace("\n", " ")
