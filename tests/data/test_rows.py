"""Training rows of the user's own: what is trained on, which interaction each is of, and what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

from dealrec.config import DataConfig
from dealrec.data.readers.layouts import layout_of
from dealrec.data.row_samples import isolated, mixed_interactions, samples_of_rows, split_rows
from dealrec.data.rows import read_rows
from dealrec.data.vocabulary import Vocabulary
from dealrec.errors import DataError

COLUMNS = {
    "row": "id",
    "prompt": "prompt",
    "completion": "completion",
    "user": "user",
    "history": "history",
    "target": "target",
    "timestamp": "time",
}
ROW = {"id": "r1", "prompt": "p", "completion": "c", "user": "u", "history": [1, 2], "target": 3, "time": 7}


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path | list[Path], texts: list[pl.DataFrame] | None = None, **columns: Any) -> SimpleNamespace:
    config = DataConfig.model_validate({"format": "rows", "rows": path, "columns": COLUMNS | columns})
    kept: list[pl.DataFrame] = [] if texts is None else texts
    vocabulary = Vocabulary()
    rows = read_rows(config, path, setting="data.rows", write=kept.append, vocabulary=vocabulary)
    items, users = (pl.lit(pl.Series(codes.texts)) for codes in (vocabulary.items, vocabulary.users))
    named = rows.table.with_columns(
        pl.col("history").list.eval(items.gather(pl.element())),
        items.gather(pl.col("target")).alias("target"),
        *([users.gather(pl.col("user_id")).alias("user_id")] if vocabulary.users.texts else []),
    )
    titles = {vocabulary.items.texts[item]: title for item, title in rows.titles.items()}
    ids = pl.concat(kept).select("row", "row_id")
    return SimpleNamespace(table=named.join(ids, on="row", maintain_order="left"), titles=titles, rows=rows)


def test_a_row_is_read_as_the_settings_name_its_fields(tmp_path: Path) -> None:
    texts: list[pl.DataFrame] = []
    rows = read(lines(tmp_path / "a.jsonl", [ROW, ROW | {"id": "r2", "target": 4}]), texts)
    table = rows.table.select("row", "row_id", "user_id", "history", "target", "timestamp")
    assert table.rows() == [(0, "r1", "u", ["1", "2"], "3", 7), (1, "r2", "u", ["1", "2"], "4", 7)]
    assert pl.concat(texts).select("row", "row_id", "prompt", "completion").rows() == [
        (0, "r1", "p", "c"),
        (1, "r2", "p", "c"),
    ]
    assert rows.titles == {"3": "c", "4": "c"}


@pytest.mark.parametrize("cell", ["[1, 2]", "['1', '2']", "1|2", "1;2", "1, 2", "1 2"])
def test_a_history_may_be_text(cell: str, tmp_path: Path) -> None:
    rows = read(lines(tmp_path / "a.jsonl", [ROW | {"history": cell}]))
    assert rows.table["history"].to_list() == [["1", "2"]]


def test_a_separator_that_is_named_is_the_one(tmp_path: Path) -> None:
    rows = read(lines(tmp_path / "a.jsonl", [ROW | {"history": "a, b/c"}]), history_separator="/")
    assert rows.table["history"].to_list() == [["a, b", "c"]]


def test_fields_may_lie_within_others_and_within_json_that_is_text(tmp_path: Path) -> None:
    row = {"id": 1, "prompt": "p", "completion": "c", "meta": {"u": 5}, "extra": '{"h": [1], "t": {"item": 2}}'}
    names: dict[str, Any] = {"user": "meta.u", "history": "extra.h", "target": "extra.t.item", "timestamp": None}
    rows = read(lines(tmp_path / "a.jsonl", [row]), **names)
    assert rows.table.select("row_id", "user_id", "history", "target").row(0) == ("1", "5", ["1"], "2")
    pl.DataFrame([row]).write_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", **names).table.equals(rows.table)


MESSAGES = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "p"},
    {"role": "assistant", "content": "c"},
]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "p", "completion": "c"}, {"prompt": "p", "completion": "c"}),
        ({"query": "p", "response": "c"}, {"prompt": "p", "completion": "c"}),
        ({"instruction": "p", "input": "", "output": "c"}, {"prompt": "p", "completion": "c"}),
        ({"instruction": "p", "input": "q", "output": "c"}, {"prompt": "p\nq", "completion": "c"}),
        ({"input_ids": [1, 2], "labels": [-100, 2]}, {"input_ids": [1, 2], "labels": [-100, 2]}),
        ({"messages": MESSAGES}, MESSAGES),
        ({"messages": json.dumps(MESSAGES)}, MESSAGES),
        (
            {"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "c"}], "system": "s"},
            MESSAGES,
        ),
        ({"instruction": "p", "output": "c", "system": "s"}, MESSAGES),
        ({"prompt": MESSAGES[:2], "completion": MESSAGES[2:]}, MESSAGES),
        ({"query": "p", "response": "c", "system": "s", "history": []}, MESSAGES),
        ({"prompt": MESSAGES[:2], "reward_model": {"style": "rule", "ground_truth": "c"}}, MESSAGES),
        ({"text": "c"}, {"prompt": "", "completion": "c"}),
        (
            {"uuid": "1", "metadata": "{}", "segments": json.dumps([{"type": "text", "text": part} for part in "ab"])},
            {"prompt": "", "completion": "ab"},
        ),
        (
            {
                "uuid": "1",
                "messages": json.dumps(
                    [
                        {"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]}
                        for turn in MESSAGES
                    ]
                ),
            },
            MESSAGES,
        ),
    ],
)
def test_layouts_of_trainers_are_known_by_their_fields(row: dict[str, Any], expected: Any) -> None:
    layout = layout_of(list(row))
    assert layout is not None
    text = layout.text(row)
    if isinstance(expected, list):
        assert [(turn["role"], turn["content"]) for turn in text["messages"]] == [
            (turn["role"], turn["content"]) for turn in expected
        ]
        assert [turn["learnt"] for turn in text["messages"]] == [turn["role"] == "assistant" for turn in expected]
    else:
        assert text == expected


def test_a_template_writes_what_the_rows_hold_in_parts() -> None:
    layout = layout_of([], templates=("Seen: {history_item_sid}.", "{item_sid}\n"))
    assert layout is not None
    row = {"history_item_sid": "['<a_1><b_2>', '<a_3><b_4>']", "item_sid": "<a_5><b_6>", "more": 1}
    assert layout.text(row) == {"prompt": "Seen: <a_1><b_2>, <a_3><b_4>.", "completion": "<a_5><b_6>\n"}
    assert layout.fields == ("history_item_sid", "item_sid")


def test_turns_of_weight_0_and_those_of_a_prompt_are_not_learnt() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}, *MESSAGES[1:]]
    for row in ({"messages": turns}, {"prompt": turns[:3], "completion": turns[3:]}):
        layout = layout_of(list(row))
        assert layout is not None
        assert [turn["learnt"] for turn in layout.text(row)["messages"]] == [False, False, False, True]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"prompt": None}, "row 2 has no 'prompt'"),
        ({"completion": None}, "row 2 has no 'completion'"),
        ({"id": None}, "row 2 has no 'id'"),
        ({"user": None}, "row 2 has no 'user'"),
        ({"time": None}, "row 2 has no 'time'"),
        ({"target": None}, "row 2 has no 'target'"),
        ({"history": None}, "row 2 has no history in 'history'"),
        ({"history": [1, None]}, "row 2 has no id in 'history', but None"),
        ({"target": 1.5}, "row 2 has no id in 'target', but 1.5"),
        ({"target": True}, "row 2 has no id in 'target'"),
        ({"prompt": 7}, "row 2 has no list of messages in 'prompt'"),
        ({"time": "yesterday"}, "several types"),
        ({"id": "r1"}, "'id' 'r1' is the id of row 1 and of row 2; 1 ids repeat"),
    ],
)
@pytest.mark.parametrize("absent", [True, False])
def test_a_row_that_lacks_what_the_settings_name_is_refused(
    changed: dict[str, Any], says: str, absent: bool, tmp_path: Path
) -> None:
    row = ROW | {"id": "r2"} | changed
    if absent:
        row = {name: value for name, value in row.items() if value is not None}
    with pytest.raises(DataError, match=says) as error:
        read(lines(tmp_path / "a.jsonl", [ROW, row]))
    assert str(tmp_path / "a.jsonl") in error.value.cause


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"input_ids": [1, 2], "labels": [-100, -100]}, "row 1 has no label in 'labels'"),
        ({"input_ids": [1, 2], "labels": [1, -100]}, "row 1 has no label in 'labels'"),
        ({"prompt": "", "completion": ""}, "row 1 has no text in 'prompt' and 'completion'"),
        ({"input_ids": [1, 2], "labels": [2]}, "row 1 has 2 input_ids and 1 labels"),
        ({"input_ids": [1, 2**31], "labels": [1, 2]}, "row 1 has 2147483648 in 'input_ids', which is no token"),
        ({"input_ids": [1, -100], "labels": [1, 2]}, "row 1 has -100 in 'input_ids', which is no token"),
        ({"input_ids": [1, 2], "labels": [-1, 2]}, "row 1 has -1 in 'labels', which is no token"),
        ({"input_ids": [1, "a"], "labels": [1, 2]}, "row 1 has no list of whole numbers in 'input_ids'"),
        ({"messages": MESSAGES[:2]}, "row 1 has nothing in 'messages' that the assistant says"),
        ({"messages": [{"role": "user"}]}, "row 1 has a message in 'messages' without text"),
        ({"messages": []}, "row 1 has no list of messages"),
        ({"other": 1}, "no fields that a model could be trained on; there are: other"),
    ],
)
def test_a_row_of_which_nothing_is_learnt_is_refused(row: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [row])
    config = DataConfig.model_validate({"format": "rows", "rows": path})
    with pytest.raises(DataError, match=says):
        read_rows(config, path, setting="data.rows", write=lambda _: None, vocabulary=Vocabulary())


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"prompt": None}, r"b\.jsonl: row 2 \(line 4\) has no 'prompt'\. Fill it in"),
        ({"id": "r0"}, r"'id' 'r0' is the id of row 1 of a\.jsonl and of row 2 \(line 4\) of b\.jsonl; 1 ids repeat"),
        ({"time": "soon"}, r"the first is 'soon' in row 2 \(line 4\) of b\.jsonl"),
    ],
)
def test_a_fault_is_named_with_its_file_row_and_line(changed: dict[str, Any], says: str, tmp_path: Path) -> None:
    """Of text, where blank lines stand between the rows, and rows of no interaction before them."""
    one = lines(tmp_path / "a.jsonl", [ROW | {"id": "r0", "time": "2024-05-01"}])
    rows = [
        {"id": "c", "prompt": "p", "completion": "c", "user": None, "history": None, "target": None, "time": None},
        ROW | {"id": "r2", "time": "2024-05-02"} | changed,
    ]
    other = tmp_path / "b.jsonl"
    other.write_text("\n\n".join(json.dumps(row) for row in rows).replace("\n\n", "\n\n \n"))
    with pytest.raises(DataError, match=says):
        read([one, other])


@pytest.mark.parametrize("nothing", [None, "", " ", "NULL", "nan", "\\N", "<NA>"])
def test_missing_values_that_are_spelt_out_are_missing(nothing: str | None, tmp_path: Path) -> None:
    """A row without history and target is of no interaction; one that has the one alone is named."""
    rows = read(lines(tmp_path / "a.jsonl", [ROW, ROW | {"id": "r2", "history": nothing, "target": nothing}]))
    assert (rows.table["row_id"].to_list(), rows.rows.others.to_list()) == (["r1"], [1])
    for name in ("id", "user", "target", "time"):
        with pytest.raises(DataError, match=rf"row 2 has no '{name}'"):
            read(lines(tmp_path / "a.jsonl", [ROW, ROW | {"id": "r2"} | {name: nothing}]))
    with pytest.raises(DataError, match="row 2 has no id in 'history', but"):
        read(lines(tmp_path / "a.jsonl", [ROW, ROW | {"id": "r2", "history": [1, nothing]}]))


def test_numbers_of_which_some_are_missing_are_those_of_pandas(tmp_path: Path) -> None:
    numbers = pl.DataFrame({"history": ["1|2", None], "target": [3.0, float("nan")], "time": [7.0, float("nan")]})
    texts = pl.DataFrame({"id": ["r1", "r2"], "prompt": ["p", "p"], "completion": ["c", "c"], "user": [5.0, 6.0]})
    pl.concat([texts, numbers], how="horizontal").write_parquet(tmp_path / "a.parquet")
    rows = read(tmp_path / "a.parquet")
    assert rows.table.select("row_id", "user_id", "history", "target").rows() == [("r1", "5", ["1", "2"], "3")]
    assert rows.rows.others.to_list() == [1]


def test_a_field_that_is_misspelt_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [ROW])
    for name in ("prompt", "history", "target", "user", "timestamp"):
        with pytest.raises(DataError, match=r"row 1 has no .*'x\.y'; it has: id, prompt, completion, user, .*\. Name"):
            read(path, **cast("dict[str, Any]", {name: "x.y"}))


def test_a_part_without_rows_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text("\n")
    parts = [lines(tmp_path / "a.jsonl", [ROW]), tmp_path / "b.jsonl", lines(tmp_path / "c.jsonl", [ROW | {"id": 2}])]
    assert read(parts).table["row_id"].to_list() == ["r1", "2"]


def test_whole_numbers_of_any_type_are_ids(tmp_path: Path) -> None:
    pl.DataFrame([ROW]).with_columns(pl.col("target").cast(pl.Decimal(20, 0))).write_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet").table["target"].to_list() == ["3"]
    half = pl.DataFrame([ROW]).with_columns(pl.lit("3.5").cast(pl.Decimal(20, 1)).alias("target"))
    half.write_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="has no id in 'target', but Decimal"):
        read(tmp_path / "b.parquet")


def test_parts_with_different_fields_are_refused(tmp_path: Path) -> None:
    one, other = lines(tmp_path / "a.jsonl", [ROW]), lines(tmp_path / "b.jsonl", [ROW | {"id": "r2", "more": 1}])
    with pytest.raises(DataError, match=r"b\.jsonl: its fields are not those of a\.jsonl: 'more'"):
        read([one, other])


def test_a_folder_of_parts_is_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for number in (2, 0, 1):
        lines(tmp_path / "parts" / f"part-{number}.jsonl", [ROW | {"id": number, "target": number}])
    rows = read(tmp_path / "parts")
    assert rows.table.select("row", "row_id", "target").rows() == [(0, "0", "0"), (1, "1", "1"), (2, "2", "2")]


def test_rows_of_one_interaction_make_one_sample(tmp_path: Path) -> None:
    rows = [
        ROW | {"id": 1, "prompt": "as a title"},
        ROW | {"id": 2, "user": "v"},
        ROW | {"id": 3, "prompt": "as a code"},
        ROW | {"id": 4, "time": 8},
        {"id": 5, "prompt": "hi", "completion": "hello"},
        ROW | {"id": 6, "history": []},
    ]
    read_ = read(lines(tmp_path / "a.jsonl", rows))
    samples = samples_of_rows(read_.table)
    assert samples.select("sample_id", "user_id", "timestamp", "rows").rows() == [
        (0, "u", 7, [0, 2]),
        (1, "v", 7, [1]),
        (2, "u", 8, [3]),
    ]
    assert (read_.rows.bare, read_.rows.others.to_list(), len(read_.rows)) == (1, [4, 5], 6)
    grouped = lines(tmp_path / "b.jsonl", [row | {"group": i // 2} for i, row in enumerate(rows[:4])])
    by_name = read(grouped, interaction="group").table
    assert samples_of_rows(by_name)["rows"].to_list() == [[0, 1], [2, 3]]
    assert mixed_interactions(by_name) == 2
    alone = read(grouped, interaction="group", history=None, target=None, timestamp=None).table
    samples = samples_of_rows(alone, single=True)
    assert samples.select("user_id", "rows").rows() == [("u", [0, 1]), ("u", [2, 3])]


def test_equal_rows_are_counted(tmp_path: Path) -> None:
    rows = read(lines(tmp_path / "a.jsonl", [ROW, ROW | {"id": 2}, ROW | {"id": 3, "completion": "d"}]))
    assert rows.rows.equal == 1


def test_validation_is_of_the_latest_or_else_drawn() -> None:
    samples = pl.DataFrame({"sample_id": range(10), "timestamp": [5, 9, 1, 2, 3, 8, 4, 6, 7, 0]})
    train, valid = split_rows(samples, share=0.2, seed=0)
    assert valid["timestamp"].to_list() == [9, 8]
    assert train["sample_id"].to_list() == list(range(8))
    draws = [
        split_rows(samples.drop("timestamp").with_columns(x=pl.col("sample_id")), share=0.2, seed=seed)[1][
            "x"
        ].to_list()
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]


def test_samples_that_share_no_item_are_isolated() -> None:
    histories, targets = pl.Series([[1, 2], [2], [7, 7], [8]]), pl.Series([3, 4, 7, 9])
    assert isolated(histories, targets).to_list() == [False, False, True, True]
