"""The table of samples: what it holds, in which order, with which reasons, and how large it gets."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dealrec.config import Config
from dealrec.engine.run_directory import read_table
from dealrec.reporting import write_report
from dealrec.reporting.table import STATES, Samples, samples_table, script_json
from tests.reporting.made import made_run, opened_run

PAPER = {"select": {"method": "dealrec"}, "pool": {"method": "influence-strata"}}

MakeRun = Callable[..., Path]
MEBI = 2**20


def table_of(folder: Path, config: Config, **room: int) -> tuple[Samples, dict[str, Any]]:
    run = opened_run(folder, config)
    found = samples_table(
        run, read_table(folder / "data" / "samples-train.parquet"), run.table("select/candidates.parquet"), **room
    )
    assert found is not None
    return found, json.loads(found.data)


def test_rows_and_reasons_by_hand(make_run: MakeRun, config: Config) -> None:
    found, data = table_of(make_run(), config)
    # Selected by rank, then the other candidate, then the one that was none. Influence is in units of 1e-6.
    reasons = [data["reasons"][row[5]] for row in data["rows"]]
    assert [row[0] for row in data["rows"]] == [0, 2, 1, 3]
    assert reasons == [
        [0, 1, "stratum 1: 1 of 2 kept"],
        [0, 0, "stratum 0: 1 of 1 kept"],
        [1, 1, "not drawn: stratum 1 kept 1 of 2"],
        [3, None, "not scored: not among the 3 candidates"],
    ]
    assert data["titles"] == ["Item 1", "Item 2", "Item 3", "Item 4", "Item 5"]
    assert data["rows"][0] == [0, 1, [0, 1, 2], 0, 3, data["rows"][0][5], 4, 3, 1.5, 1]
    assert data["rows"][2][6:] == [2, 2, 0.75]  # no rank
    assert data["rows"][3][6:] == [-1]  # influence alone
    assert [(state.total, state.shown) for state in found.states] == [(2, 2), (1, 1), (0, 0), (1, 1)]
    assert [(row["sample"], row["why"], row["scores"]) for row in found.rows] == [
        (0, "stratum 1: 1 of 2 kept", ["4", "3", "1.50"]),
        (2, "stratum 0: 1 of 1 kept", ["0", "1", "0"]),
    ]


def test_the_hardest_are_told_apart(tmp_path: Path) -> None:
    config = Config.model_validate({"select": {"hard_prune": 0.1, "strata": 7}})
    run = made_run(tmp_path / "run", config, samples=300, items=60, budget=20, pool=100)
    found, data = table_of(run, config)
    assert [state.total for state in found.states] == [20, 70, 10, 200]
    of_states = [[row for row in data["rows"] if data["reasons"][row[5]][0] == place] for place in range(len(STATES))]
    assert [len(rows) for rows in of_states] == [20, 70, 10, 200]
    assert min(row[8] for row in of_states[2]) >= max(row[8] for row in of_states[0] + of_states[1])
    assert data["reasons"][of_states[2][0][5]][2] == "dropped as one of the hardest (select.hard_prune)"
    # Counts in the reasons are those of the rows.
    for place, (_, stratum, text) in enumerate(data["reasons"]):
        rows = [row for row in data["rows"] if row[5] == place]
        if rows and text.endswith("kept"):
            assert text.startswith(f"stratum {stratum}: {len(rows)} of ")


def test_what_does_not_fit_is_left_out_from_the_end_and_counted(tmp_path: Path) -> None:
    config = Config.model_validate(PAPER)
    run = made_run(tmp_path / "run", config, samples=400, items=60, budget=20, pool=100)
    whole, every = table_of(run, config)
    part, some = table_of(run, config, room=len(whole.data) // 3)
    assert whole.shown == whole.total == part.total == 400
    assert 20 < part.shown < 400
    assert some["rows"] == every["rows"][: part.shown]
    assert some["titles"] == every["titles"][: len(some["titles"])]
    assert max(place for row in some["rows"] for place in (*row[2], row[4])) < len(some["titles"])
    write_report(opened_run(run, config), tmp_path / "page.html")
    assert "All 400 training samples" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("text", ["</script>", "<!--", "\u2028\u2029", "\"'\\", "é漢\U0001f600"])
def test_json_in_a_script_element_stays_in_it(text: str) -> None:
    written = script_json({"x": text})
    assert json.loads(written) == {"x": text}
    assert not set("<\u2028\u2029") & set(written)


@pytest.mark.slow
def test_a_hundred_thousand_samples_stay_below_five_megabytes(tmp_path: Path) -> None:
    config = Config.model_validate(PAPER)
    run = made_run(tmp_path / "run", config, samples=100_000, items=30_000, budget=2_000, pool=8_192)
    start = time.perf_counter()
    write_report(opened_run(run, config), tmp_path / "page.html")
    assert time.perf_counter() - start < 120  # a few seconds where nothing else runs
    source = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert 3.5e6 < len(source.encode()) < 5e6
    assert "of the 100,000 training samples are in this page (2,000 kept; 6,192 not selected; " in source
    assert source.count("<tr><td class") == 1_000
    assert "The first 1,000 of the 2,000 that were kept, by overall score" in source


@pytest.mark.slow
def test_titles_of_any_length_do_not_make_the_page_large(tmp_path: Path) -> None:
    config = Config.model_validate(PAPER)
    hostile = ["<&>" * 5_000, *("\U0001f600" * 9_000 for _ in range(999))]
    sizes: dict[str, Any] = {"samples": 3_000, "items": 1_000, "budget": 1_500, "pool": 2_000}
    run = made_run(tmp_path / "run", config, **sizes, hostile=hostile)
    write_report(opened_run(run, config), tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 5e6
