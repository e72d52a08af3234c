"""`dealrec init` on training rows of the user's own: what it recognises, and that the config that it writes is one."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from dealrec.config.files import load
from dealrec.drafting.rows import rows_draft
from tests.conftest import Cli, made_interactions, made_items


def interactions() -> list[dict[str, Any]]:
    """Of each an id, user, history, target and time."""
    rows: list[dict[str, Any]] = []
    for (user,), table in made_interactions().sort("user_id", "timestamp").group_by("user_id", maintain_order=True):
        items, times = table["item_id"].to_list(), table["timestamp"].to_list()
        for place in range(1, len(items)):
            about = {"user": user, "history": items[:place], "target": items[place], "time": times[place]}
            rows.append({"id": f"r{len(rows)}", **about})
    return rows


TURNS = [("user", "p"), ("assistant", "c")]
SHAREGPT = [{"from": "human", "value": "p"}, {"from": "gpt", "value": "c"}]
MESSAGES = [{"role": role, "content": text} for role, text in TURNS]
COLUMNS = {"row": "id", "user": "user", "history": "history", "target": "target", "timestamp": "time"}


def of(row: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**row, **more}


CASES: dict[str, tuple[str, Any, dict[str, str]]] = {
    "pairs": ("train.jsonl", lambda row: of(row, prompt="p", completion="c"), COLUMNS),
    "alpaca": ("data.json", lambda row: of(row, instruction="p", input="", output="c"), COLUMNS),
    "sharegpt": (
        "data.json",
        lambda row: of(row, conversations=SHAREGPT),
        COLUMNS,
    ),
    "tokens": ("train.jsonl", lambda row: of(row, input_ids=[5, 6], labels=[-100, 6]), COLUMNS),
    "verl": (
        "train.parquet",
        lambda row: {
            "data_source": "x",
            "prompt": MESSAGES[:1],
            "reward_model": {"style": "rule", "ground_truth": "c"},
            "extra_info": {
                "index": row["id"],
                "user_id": row["user"],
                "history": row["history"],
                "item_id": row["target"],
            },
        },
        {"user": "extra_info.user_id", "history": "extra_info.history", "target": "extra_info.item_id"},
    ),
    "onerec": (
        "train.parquet",
        lambda row: {
            "uuid": row["id"],
            "source": "x",
            "metadata": json.dumps({"uid": row["user"], "history": row["history"], "target": row["target"]}),
            "messages": json.dumps(MESSAGES),
        },
        {"row": "uuid", "user": "metadata.uid", "history": "metadata.history", "target": "metadata.target"},
    ),
    "minionerec": (
        "train.csv",
        lambda row: {
            "user_id": row["user"],
            "history_item_title": str([f"Film {item}" for item in row["history"]]),
            "item_title": f"Film {row['target']}",
            "history_item_id": str(row["history"]),
            "item_id": row["target"],
            "history_item_sid": str([f"<a_{item}>" for item in row["history"]]),
            "item_sid": f"<a_{row['target']}>",
        },
        {"user": "user_id", "history": "history_item_id", "target": "item_id"},
    ),
    "chat": ("train.jsonl", lambda row: {"messages": MESSAGES, "id": row["id"]}, {"row": "id"}),
}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".csv":
        pl.DataFrame(rows).write_csv(path)
    else:
        pl.DataFrame(rows).write_parquet(path)


@pytest.mark.parametrize("case", CASES)
def test_the_layouts_of_trainers_are_recognised(case: str, tmp_path: Path, tiny_llm: Path, cli: Cli) -> None:
    name, row_of, columns = CASES[case]
    rows = [row_of(row) for row in interactions()]
    write(tmp_path / name, rows)
    out = tmp_path / "config.yaml"
    status, shown, err = cli("init", tmp_path / name, "--llm", tiny_llm, "--out", out)
    assert status == 0, err
    written = yaml.safe_load(out.read_text())["data"]
    assert written["format"] == "rows"
    assert written["rows"] == name
    named = {key: value for key, value in written["columns"].items() if value is not None}
    assert {key: named.get(key) for key in columns} == columns
    assert ("target" in named) == ("target" in columns)
    assert "looked at" in shown
    if case == "minionerec":
        assert "{history_item_sid}" in written["template"]["prompt"]
        assert "placeholder" in err
    if case == "chat":
        assert "signals of the LLM alone" in err
    if case not in ("sharegpt", "verl", "onerec", "chat"):  # for which the tiny LLM would need a chat template
        status, _, err = cli("validate", out)
        assert status == 0, err
    else:
        assert "no chat template" in cli("validate", out)[2]


def test_parts_are_told_by_their_names(tmp_path: Path, tiny_llm: Path, cli: Cli) -> None:
    rows = [of(row, prompt="p", completion="c") for row in interactions()]
    for name, part in (("train", rows[:100]), ("valid", rows[100:150]), ("test", rows[150:])):
        write(tmp_path / f"{name}.jsonl", part)
    out = tmp_path / "config.yaml"
    assert cli("init", tmp_path / "train.jsonl", "--llm", tiny_llm, "--out", out)[0] == 0
    data = load(out).data
    assert [str(path).rpartition("/")[2] for path in (data.rows, data.valid_rows, data.test_rows)] == [
        "train.jsonl",
        "valid.jsonl",
        "test.jsonl",
    ]
    assert cli("init", tmp_path / "train.jsonl", tmp_path / "test.jsonl", "--out", out, "--force")[0] == 0
    assert load(out).data.valid_rows is None


def test_interactions_and_items_are_no_training_rows(tmp_path: Path) -> None:
    made_interactions().write_parquet(tmp_path / "log.parquet")
    made_items().write_parquet(tmp_path / "items.parquet")
    reviews = made_interactions().with_columns(text=pl.lit("I liked it"), prompt=pl.lit(1), completion=pl.lit(2))
    reviews.write_parquet(tmp_path / "reviews.parquet")
    for names in (["log"], ["items"], ["log", "items"], ["reviews", "items"]):
        assert rows_draft([tmp_path / f"{name}.parquet" for name in names]) is None
