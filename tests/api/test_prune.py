"""The Python API."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from filelock import FileLock, Timeout

import dealrec
from dealrec.engine import runner
from dealrec.errors import ConfigError, DataError, RunDirectoryError
from tests.conftest import made_interactions, made_items

pytestmark = pytest.mark.slow  # runs


def pruned(sections: dict[str, Any], **options: Any) -> dealrec.Pruned:
    """`prune` on the made-up tables; the leak of leave-last-out is warned about."""
    others = {name: value for name, value in sections.items() if name not in options}
    with pytest.warns(UserWarning, match="the future leaks"):
        return dealrec.prune(made_interactions(), made_items(), **{"budget": 6, **others, **options})


def test_tables_in_selection_out(sections: dict[str, Any], tmp_path: Path) -> None:
    found = pruned(sections, run_dir=tmp_path / "run")
    assert len(found.selected) == 6
    assert {"sample_id", "rank", "influence", "effort", "overall", "user_id", "history", "target"} <= set(
        found.selected.columns
    )
    rows = [json.loads(line) for line in found.export(tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert [set(row) for row in rows] == [{"prompt", "completion"}] * 6
    assert "<html" in found.report(tmp_path / "report.html").read_text()
    assert not (tmp_path / "run" / "finetune").exists()


def test_files_and_tables_give_the_same_and_a_second_call_resumes(sections: dict[str, Any], tmp_path: Path) -> None:
    found = pruned(sections, run_dir=tmp_path / "tables")
    made_interactions().write_csv(tmp_path / "i.csv")
    made_items().write_ndjson(tmp_path / "i.jsonl")
    with pytest.warns(UserWarning, match="the future leaks"):
        again = dealrec.prune(
            tmp_path / "i.csv", str(tmp_path / "i.jsonl"), budget=6, **sections,
            run_dir=tmp_path / "files",
        )  # fmt: skip
    assert again.selected["target"].to_list() == found.selected["target"].to_list()


def test_a_directory_in_use_keeps_its_input_and_ours_is_held_to_the_end(
    sections: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, held = FileLock(tmp_path / "run" / runner.LOCK), list[bool]()
    (tmp_path / "run").mkdir()
    with lock, pytest.raises(RunDirectoryError, match="in use by another process"):
        dealrec.prune(made_interactions(), made_items(), budget=6, **sections, run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "input").exists()

    def look(path: Path, content: pl.DataFrame) -> Any:
        try:
            with FileLock(lock.lock_file).acquire(blocking=False):
                held.append(False)
        except Timeout:
            held.append(True)
        return write(content, path)

    write = pl.DataFrame.write_parquet
    monkeypatch.setattr(pl.DataFrame, "write_parquet", lambda content, path, **_: look(path, content))
    pruned(sections, run_dir=tmp_path / "run", until="data")
    assert len(held) > 2  # the input, and the tables of the stage
    assert all(held)


def test_without_a_run_dir_a_temporary_one_is_made(sections: dict[str, Any]) -> None:
    found = pruned(sections, until="influence")
    assert (found.run_dir / "influence" / "scores.parquet").exists()


def test_the_pool_is_four_times_the_budget_unless_said_otherwise(sections: dict[str, Any], tmp_path: Path) -> None:
    del sections["effort"]
    assert pruned(sections, budget=5, until="data").config.pool.size == 20
    assert pruned(sections, budget=0.5, until="data").config.pool.size == 1.0


def test_what_another_run_has_overtaken_is_not_shown_as_this_one(sections: dict[str, Any], tmp_path: Path) -> None:
    first = pruned(sections, run_dir=tmp_path / "run")
    assert len(first.training_data) == 6
    tables = made_interactions(), made_items()
    second = dealrec.prune(*tables, budget=4, **sections, run_dir=tmp_path / "run", until="select")
    assert len(second.selected) == 4
    for outdated in (lambda: first.selected, lambda: second.training_data, lambda: second.export(tmp_path / "x.jsonl")):
        with pytest.raises(RunDirectoryError, match="yet in"):
            outdated()


def test_a_run_dir_holds_when_the_working_directory_changes(
    sections: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = pruned(sections, run_dir="run")
    monkeypatch.chdir("/")
    assert len(found.selected) == 6


def test_progress_is_shown_when_asked_for(
    sections: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = made_interactions(), made_items()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dealrec.prune(*tables, budget=6, **sections, run_dir=tmp_path / "shown", until="data", progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "data ..." in shown.err
    assert "the future leaks" in shown.err
    pruned(sections, run_dir=tmp_path / "quiet", until="data", progress=False)
    assert capsys.readouterr().err == ""


def test_integers_and_strings_as_ids_and_a_session_as_user(sections: dict[str, Any], tmp_path: Path) -> None:
    interactions = made_interactions().rename({"user_id": "session", "item_id": "sku"})
    interactions = interactions.with_columns(pl.format("sku-{}", "sku").alias("sku"))
    items = made_items().rename({"item_id": "sku"}).with_columns(pl.format("sku-{}", "sku").alias("sku"))
    sections["data"]["columns"] = {"user": "session", "item": "sku"}
    with pytest.warns(UserWarning, match="the future leaks"):
        found = dealrec.prune(interactions, items, budget=6, run_dir=tmp_path / "run", **sections)
    assert all(target.startswith("sku-") for target in found.selected["target"])


def test_errors_name_cause_and_remedy(sections: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no stage 'exprt'"):
        dealrec.prune("a.csv", "b.csv", budget=1, llm="x", until="exprt")
    with pytest.raises(DataError, match=r"a\.csv"):
        dealrec.prune("a.csv", "b.csv", budget=1, llm="x", run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match="Did you mean"):
        dealrec.prune("a.csv", "b.csv", budget=1, llm="x", run_dir=tmp_path / "run", effrt={"pool": 3})


def test_recbole_and_release_files_run(
    sections: dict[str, Any], tmp_path: Path, write_config: Callable[..., Path]
) -> None:
    interactions = made_interactions()
    path = write_config(data={"format": "recbole", "interactions": "d.inter", "items": "d.item"})
    table = interactions.rename(
        {"user_id": "user_id:token", "item_id": "item_id:token", "timestamp": "timestamp:float"}
    )
    table.write_csv(path.parent / "d.inter", separator="\t")
    made_items().rename({"item_id": "item_id:token", "title": "title:token_seq"}).write_csv(
        path.parent / "d.item", separator="\t"
    )
    recbole = run_until_data(path, tmp_path / "recbole")
    assert recbole["train_samples"] == 40

    path = write_config(data={"format": "dealrec", "interactions": "release", "split": "column"})
    (path.parent / "release").mkdir()
    users = interactions.sort("user_id", "timestamp").group_by("user_id", maintain_order=True).agg("item_id")
    rows = [(number, items) for number, items in enumerate(users["item_id"].to_list(), 1)]
    for part, cut in {"train": slice(0, -2), "valid": slice(-2, -1), "test": slice(-1, None)}.items():
        lines = [" ".join(map(str, [user, *items[cut]])) for user, items in rows]
        (path.parent / "release" / f"sequential_{part}.txt").write_text("\n".join(lines) + "\n")
    release = run_until_data(path, tmp_path / "release-run")
    assert {name: release[name] for name in recbole} == recbole


def run_until_data(config: Path, run_dir: Path) -> dict[str, Any]:
    from dealrec.config import Config
    from dealrec.config.files import load
    from dealrec.engine.runner import run
    from dealrec.engine.stage import Silent
    from dealrec.stages.pipeline import stages as declared

    stages = declared(Config.model_validate({"select": {"method": "dealrec"}, "pool": {"method": "influence-strata"}}))

    (outcome,) = run(load(config), run_dir, stages[:1], progress=Silent())
    return outcome.manifest.facts
