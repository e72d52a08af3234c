"""`dealrec init` on training rows of the user's own: what it recognises, and that the config that it writes is one."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from dealrec.config.files import load
from dealrec.drafting.looks import Look
from dealrec.drafting.rows import look_at_rows
from dealrec.errors import DataError
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


@pytest.fixture(scope="module")
def chat_llm(tiny_llm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny LLM with a chat template."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("chat") / "llm"
    shutil.copytree(tiny_llm, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (
        "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    return folder


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
        {
            "row": "extra_info.index",
            "user": "extra_info.user_id",
            "history": "extra_info.history",
            "target": "extra_info.item_id",
        },
    ),
    "onerec": (
        "onerec",
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
    elif path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    else:
        path.mkdir()
        for number, part in enumerate((rows[:100], rows[100:])):
            pl.DataFrame(part).write_parquet(path / f"part-0000{number}-of-00002.parquet")


@pytest.mark.parametrize("case", CASES)
def test_the_layouts_of_trainers_are_recognised(case: str, tmp_path: Path, chat_llm: Path, cli: Cli) -> None:
    name, row_of, columns = CASES[case]
    rows = [row_of(row) for row in interactions()]
    write(tmp_path / name, rows)
    out = tmp_path / "config.yaml"
    status, shown, err = cli("init", tmp_path / name, "--llm", chat_llm, "--out", out)
    assert status == 0, err
    written = yaml.safe_load(out.read_text())["data"]
    assert written["format"] == "rows"
    assert written["rows"] == name
    assert {key: value for key, value in written["columns"].items() if value is not None} == columns
    assert "looked at" in shown
    assert ("{history_item_sid}" in str(written.get("template"))) == ("placeholder" in err) == (case == "minionerec")
    assert ("signals of the LLM alone" in err) == (case == "chat")
    status, shown, err = cli("validate", out)
    assert status == 0, err
    assert "is valid" in shown


def pairs(count: int | None = None) -> list[dict[str, Any]]:
    return [of(row, prompt="p", completion="c") for row in interactions()[:count]]


def drafted(*paths: Path, ask: Any = None, **said: Any) -> dict[str, Any]:
    """The guesses by their keys without `data.`."""
    found = look(*paths, ask=ask, **said)
    assert found is not None
    return {guess.key.removeprefix("data."): guess.value for guess in found.guesses}


def look(*paths: Path, ask: Any = None, **said: Any) -> Look | None:
    return look_at_rows(paths, {f"data.{key}": value for key, value in said.items()}, ask, most=10)


class TestParts:
    """Which file is which part."""

    def test_of_one_file_those_beside_it(self, tmp_path: Path, tiny_llm: Path, cli: Cli) -> None:
        for name, count in (("train", 100), ("valid", 50), ("test", 60)):
            write(tmp_path / f"{name}.jsonl", pairs(count))
        out = tmp_path / "config.yaml"
        assert cli("init", tmp_path / "train.jsonl", "--llm", tiny_llm, "--out", out)[0] == 0
        data = load(out).data
        names = [Path(str(path)).name for path in (data.rows, data.valid_rows, data.test_rows)]
        assert names == ["train.jsonl", "valid.jsonl", "test.jsonl"]
        assert cli("init", tmp_path / "train.jsonl", tmp_path / "test.jsonl", "--out", out, "--force")[0] == 0
        assert load(out).data.valid_rows is None

    def test_those_beside_have_to_hold_such_rows(self, tmp_path: Path) -> None:
        write(tmp_path / "train.jsonl", pairs(20))
        write(tmp_path / "test.jsonl", [{"answer": "x"}])
        found = look(tmp_path / "train.jsonl")
        assert found is not None
        assert found.figures.keys() == {"layout", "looked_at", "rows"}
        assert "test.jsonl is left out" in str(found.notes)

    def test_of_several_by_name_or_in_order(self, tmp_path: Path, cli: Cli) -> None:
        paths = [tmp_path / f"{name}.jsonl" for name in ("a", "aims", "last")]
        for path in paths:
            write(path, pairs(20))
        assert drafted(*paths[:2])["valid_rows"] == paths[1]
        out = tmp_path / "config.yaml"
        assert cli("init", *paths, "--out", out)[0] == 0
        assert str(load(out).data.test_rows).endswith("last.jsonl")
        dev = tmp_path / "dev.jsonl"
        write(dev, pairs(20))
        assert drafted(dev, paths[0])["rows"] == paths[0]
        made_items().write_csv(tmp_path / "items.csv")
        status, _, err = cli("init", paths[0], tmp_path / "items.csv", "--out", out, "--force")
        assert status == 2
        assert "holds no training rows" in err
        assert "data.items" in err
        made_interactions().write_csv(tmp_path / "log.csv")
        status, _, err = cli("init", *(tmp_path / name for name in ("log.csv", "items.csv", "a.jsonl")), "--out", out)
        assert status == 2

    def test_of_a_folder_of_shards(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        names = ["train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"]
        for name in names:
            write(tmp_path / f"{name}.parquet", pairs(20))
        paths = [tmp_path / f"{name}.parquet" for name in names]
        for given in (tmp_path, paths[0]):
            guesses = drafted(given)
            assert guesses["rows"] == paths[:2]
            assert guesses["valid_rows"] == paths[2]
        monkeypatch.chdir(tmp_path)
        assert len(drafted()["rows"]) == 2
        made_items().write_csv(tmp_path / "items.csv")
        assert look() is None

    def test_sizes_go_with_the_rows(self, tmp_path: Path, cli: Cli) -> None:
        out = tmp_path / "config.yaml"
        write(tmp_path / "train.csv", [{"prompt": "p", "completion": "c"}] * 20)
        assert cli("init", tmp_path / "train.csv", "--out", out)[0] == 0
        assert load(out).select.budget == 0.1
        assert "of 20 rows" in out.read_text()
        write(tmp_path / "train.csv", [{"prompt": "p", "completion": "c"}] * 20_000)
        assert cli("init", tmp_path / "train.csv", "--out", out, "--force")[0] == 0
        assert load(out).select.budget == 1024


class TestColumns:
    """Which field is what, by name and content."""

    def of(self, tmp_path: Path, ask: Any = None, said: Any = None, **fields: Any) -> dict[str, Any]:
        """Guesses where rows have these fields, made of the interaction's."""
        rows = [{name: of_row(row) for name, of_row in fields.items()} for row in interactions()]
        write(tmp_path / "rows.jsonl", [{"prompt": "p", "completion": "c", **row} for row in rows])
        guesses = drafted(tmp_path / "rows.jsonl", ask=ask, **(said or {}))
        return {key.removeprefix("columns."): value for key, value in guesses.items() if key.startswith("columns.")}

    def test_lists_in_which_the_target_stands_may_be_called_anything(self, tmp_path: Path) -> None:
        found = self.of(tmp_path, shown=lambda row: row["history"], item=lambda row: row["target"])
        assert found == {"history": "shown", "target": "item"}
        found = self.of(tmp_path, history=lambda row: row["history"], y=lambda row: row["target"])
        assert found == {"history": "history", "target": "y"}

    def test_candidates_are_no_history_and_clicks_no_target(self, tmp_path: Path) -> None:
        candidates = {"candidates": lambda row: [row["target"], 1, 2], "item": lambda row: row["target"]}
        assert self.of(tmp_path, **candidates) == {}
        found = self.of(tmp_path, history=lambda row: row["history"], label=lambda row: row["target"] % 2)
        assert found == {}

    def test_prose_is_no_history(self, tmp_path: Path) -> None:
        texts = ["the quick fox 1", "a slow dog 2", "no animal 3", "the fox 4"]
        found = self.of(
            tmp_path,
            context=lambda row: texts[row["target"] % 4],
            answer=lambda row: ["fox", "cat", "bird", "ant", "dog"][row["target"] % 5] + "s" * (row["target"] % 3),
        )
        assert found == {}

    def test_ids_separated_by_spaces_are(self, tmp_path: Path) -> None:
        found = self.of(
            tmp_path, history=lambda row: " ".join(map(str, row["history"])), target=lambda row: row["target"]
        )
        assert found == {"history": "history", "target": "target"}

    def test_a_field_that_no_time_can_be_read_from_is_none(self, tmp_path: Path) -> None:
        both = {"history": lambda row: row["history"], "target": lambda row: row["target"]}
        assert "timestamp" not in self.of(tmp_path, **both, date=lambda _: "yesterday")
        assert self.of(tmp_path, **both, date=lambda _: "2024-05-01")["timestamp"] == "date"

    def test_what_is_said_is_taken(self, tmp_path: Path) -> None:
        fields = {"history": lambda row: row["history"], "seen": lambda row: row["history"][-1:]}
        fields |= {"target": lambda row: row["target"], "who": lambda row: row["user"], "uuid": lambda row: row["id"]}
        said = {"columns.history": "seen", "columns.user": "who", "columns.row": None}
        assert self.of(tmp_path, said=said, **fields) == {"target": "target"}
        assert self.of(tmp_path, said={"columns.target": None}, **fields) == {"row": "uuid"}
        both = {"columns.history": "uuid", "columns.target": "who"}  # `validate` says what is wrong with them
        assert self.of(tmp_path, said=both, **fields) == {}
        with pytest.raises(DataError, match="no value in 'absent'; there are: history, seen"):
            self.of(tmp_path, said={"columns.history": "absent"}, **fields)
        assert look(tmp_path / "rows.jsonl", format="table") is None

    def test_texts_may_be_called_anything_if_it_is_said(self, tmp_path: Path) -> None:
        write(tmp_path / "rows.jsonl", [{"question": "p", "reply": "c"}] * 3)
        assert look(tmp_path / "rows.jsonl") is None
        said = {"columns.prompt": "question", "columns.completion": "reply"}
        assert drafted(tmp_path / "rows.jsonl", **said)["format"] == "rows"

    def test_what_is_ambiguous_is_asked(self, tmp_path: Path) -> None:
        asked: list[tuple[str, list[str]]] = []

        def ask(role: str, _: str, names: Sequence[str]) -> str:
            asked.append((role, list(names)))
            return names[-1]

        fields: dict[str, Any] = {"history": lambda row: row["history"], "target": lambda row: row["target"]}
        assert self.of(tmp_path, ask, **fields)["target"] == "target"
        assert asked == []
        found = self.of(tmp_path, ask, **fields, user=lambda row: row["user"], member=lambda row: row["user"] * 2)
        assert asked == [("user", ["user", "member"])]
        assert found["user"] == "member"
        asked.clear()
        found = self.of(tmp_path, ask, **fields, next_item=lambda row: (row["target"] + 1) % 30)
        assert asked == [("target", ["target", "next_item"])]
        assert found["target"] == "next_item"


def test_item_titles_are_the_template_where_there_are_no_codes(tmp_path: Path) -> None:
    rows = [
        {"history_item_title": f"['Film {row['history'][0]}']", "item_title": "Film 1", "history_item_id": "[1]"}
        for row in interactions()
    ]
    write(tmp_path / "train.csv", rows)
    assert drafted(tmp_path / "train.csv")["template.prompt"] == "REPLACE THIS: {history_item_title}"


def test_interactions_and_items_are_no_training_rows(tmp_path: Path) -> None:
    made_interactions().write_parquet(tmp_path / "log.parquet")
    made_items().write_parquet(tmp_path / "items.parquet")
    reviews = made_interactions().with_columns(text=pl.lit("I liked it"), prompt=pl.lit(1), completion=pl.lit(2))
    reviews.write_parquet(tmp_path / "reviews.parquet")
    for names in (["log"], ["items"], ["log", "items"], ["reviews", "items"]):
        assert look(*(tmp_path / f"{name}.parquet" for name in names)) is None
