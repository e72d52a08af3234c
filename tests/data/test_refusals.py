"""What `read` refuses: always a DataError on one line that names the file, the column, the value and the row."""

import gzip
import pickle
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dealrec.columns import ITEM, TIMESTAMP, TITLE, USER
from dealrec.config import Columns, DataConfig
from dealrec.data.sources import read
from dealrec.errors import DataError

LOG = "user_id,item_id,timestamp,rating,split\nu1,a,2,3,train\nu1,b,1,4,valid\nu2,a,3,5,test\n"
ITEMS = "item_id,title\na,Ant\nb,Bee\n"
MAPPED = Columns(rating="rating", split="split")


def refusal(folder: Path, log: str | bytes | Path = LOG, items: str | bytes | Path = ITEMS, **settings: Any) -> str:
    settings = {"columns": MAPPED} | settings
    paths = []
    for name, content in (("log.csv", log), ("items.csv", items)):
        path = content if isinstance(content, Path) else folder / name
        if not isinstance(content, Path):
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        paths.append(path)
    with pytest.raises(DataError) as caught:
        read(DataConfig(interactions=paths[0], items=paths[1], **settings), warn=lambda _: None)
    assert type(caught.value) is DataError
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    # The folder has the name of the test, which may well hold the very word that is looked for.
    return str(caught.value).replace(str(folder), "FOLDER")


def assert_names(message: str, *parts: str) -> None:
    for part in parts:
        assert part in message


def test_the_base_case_is_not_refused(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception):
        refusal(tmp_path)


@pytest.mark.parametrize(
    ("column", "row", "old", "new", "says"),
    [
        (USER, 2, "u1,b", ",b", ["in 1 of 3 rows", "None"]),
        (USER, 3, "u2,a", " ,a", ["in 1 of 3 rows", "' '"]),
        (ITEM, 1, "u1,a", "u1,", ["in 1 of 3 rows", "None"]),
        (TIMESTAMP, 3, "a,3", "a,", ["in 1 of 3 rows", "None"]),
        (TIMESTAMP, 2, "b,1", "b,nan", ["'nan'", "NaN or infinite"]),
        (TIMESTAMP, 2, "b,1", "b,inf", ["'inf'", "NaN or infinite"]),
        (TIMESTAMP, 2, "b,1", "b,yesterday", ["'yesterday'", "ISO 8601"]),
        (TIMESTAMP, 1, "a,2", "a,2024-02-30", ["'2024-02-30'"]),
        (TIMESTAMP, 1, "a,2", "a,31.05.2024", ["'31.05.2024'"]),
        ("rating", 2, ",4,", ",good,", ["'good'", "cannot be read as a number"]),
        ("rating", 2, ",4,", ",,", ["None"]),
        ("rating", 3, ",5,", ",-inf,", ["'-inf'", "NaN or infinite"]),
        ("rating", 3, ",5,", ",NaN,", ["'NaN'", "NaN or infinite"]),
        ("split", 3, ",test", ",holdout", ["'holdout'", "train, valid or test"]),
        ("split", 3, ",test", ",", ["None"]),
    ],
)
def test_a_bad_value(tmp_path: Path, column: str, row: int, old: str, new: str, says: list[str]) -> None:
    message = refusal(tmp_path, LOG.replace(old, new, 1))
    assert_names(message, "FOLDER/log.csv: ", f"column '{column}'", f"in data row {row}", *says)


def test_bad_values_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    message = refusal(tmp_path, LOG.replace(",3,train", ",bad,train").replace(",5,", ",worse,"))
    assert_names(message, "in 2 of 3 rows", "the first is 'bad' in data row 1")


def test_a_missing_id_in_the_items_table(tmp_path: Path) -> None:
    assert_names(refusal(tmp_path, items="item_id,title\na,Ant\n,Bee\n"), "items.csv", "column 'item_id'", "data row 2")


@pytest.mark.parametrize(
    ("column", "values", "says"),
    [
        (USER, [1.0, 2.5], ["2.5", "data row 2", "integers or text"]),
        (USER, [1.0, float("nan")], ["nan", "data row 2"]),
        (USER, [1.0, 2.0**60], ["whole numbers"]),
        (USER, [True, False], ["Boolean"]),
        (ITEM, [["a"], ["b"]], ["List"]),
        (USER, pl.Series([1, 2**64 - 1], dtype=pl.UInt64), ["64 bits", "data row 2"]),
        (TIMESTAMP, [1.0, float("nan")], ["NaN or infinite", "data row 2"]),
        (TIMESTAMP, [float("-inf"), 1.0], ["NaN or infinite", "data row 1"]),
        (TIMESTAMP, [True, False], ["Boolean"]),
        ("rating", [True, False], ["Boolean"]),
        ("rating", [1.0, float("nan")], ["NaN or infinite", "data row 2"]),
        ("split", [0, 1], ["Int64", "is 0 in"]),
    ],
)
def test_a_bad_typed_value(tmp_path: Path, column: str, values: Any, says: list[str]) -> None:
    good = {USER: ["u", "v"], ITEM: ["a", "b"], TIMESTAMP: [1, 2], "rating": [1.0, 2.0], "split": ["train", "test"]}
    pl.DataFrame(good | {column: values}, strict=False).write_parquet(tmp_path / "log.parquet")
    message = refusal(tmp_path, tmp_path / "log.parquet")
    assert_names(message, "log.parquet", f"column '{column}'", *says)


def test_titles_that_are_lists(tmp_path: Path) -> None:
    pl.DataFrame({ITEM: ["a"], TITLE: [["Ant"]]}).write_parquet(tmp_path / "items.parquet")
    assert_names(refusal(tmp_path, items=tmp_path / "items.parquet"), "items.parquet", "column 'title'", "List")


@pytest.mark.parametrize(
    ("names", "setting", "missing"),
    [
        ({"user": "user"}, "data.columns.user", "'user'; there are: user_id, item_id, timestamp, rating, split"),
        ({"timestamp": "time"}, "data.columns.timestamp", "'time'"),
        ({"rating": "ratings"}, "data.columns.rating", "'ratings'"),
        ({"split": "splits"}, "data.columns.split", "'splits'"),
        ({"item": "item"}, "data.columns.item", "'item'"),
        ({"title": "titel"}, "data.columns.title", "'titel'; there are: item_id, title"),
    ],
)
def test_a_missing_column(tmp_path: Path, names: dict[str, str], setting: str, missing: str) -> None:
    message = refusal(tmp_path, columns=Columns(**names))
    near = {"title": "title", "time": "timestamp"}.get(next(iter(names)), next(iter(names)))
    assert_names(message, ".csv", f"no column {missing}", setting, f"did you mean '{near}")


def test_no_time_column_may_mean_row_order(tmp_path: Path) -> None:
    assert_names(refusal(tmp_path, LOG.replace("timestamp", "x")), "data.columns.timestamp", "null")


@pytest.mark.parametrize("content", ["", "user_id,item_id,timestamp,rating,split\n", "\n", "a,b\n\n\n"])
def test_an_empty_file(tmp_path: Path, content: str) -> None:
    assert_names(refusal(tmp_path, content), "log.csv: the file is empty")
    assert_names(refusal(tmp_path, items=content), "items.csv: the file is empty")


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv.gz"])
def test_an_empty_file_of_another_kind(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"log.{ending}"
    path.touch()
    assert_names(refusal(tmp_path, path), f"{path.name}: the file is empty (0 bytes)")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert_names(refusal(tmp_path, tmp_path / "none.csv"), "none.csv", "no such file", "data.interactions")
    (tmp_path / "folder.parquet").mkdir()
    assert_names(refusal(tmp_path, tmp_path / "folder.parquet"), "folder.parquet", "not a file")


@pytest.mark.parametrize("content", [b"u,i\n1,\xff\xfe\n", b"a,b\n1,2,3\n", b'a,b\n1,"x\n'])
def test_a_damaged_csv_file(tmp_path: Path, content: bytes) -> None:
    assert_names(refusal(tmp_path, content), "log.csv", "cannot be read")


def test_truncated_files(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"user_id": 1, "item_id": "a", "timestamp": 1}\n{"user_id": 2, "it')
    assert_names(refusal(tmp_path, path), "log.jsonl", "cannot be read")
    for whole in (LOG * 500, '{"user_id": 1}\n' * 500):
        path = tmp_path / ("log.csv.gz" if whole.startswith("user") else "log.jsonl.gz")
        path.write_bytes(gzip.compress(whole.encode())[:-20])
        assert_names(refusal(tmp_path, path), path.name, "cannot be read")


def test_truncated_parquet_files(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({USER: [1, 2], ITEM: ["a", "b"], TIMESTAMP: [1, 2]}).write_parquet(path)
    whole = path.read_bytes()
    for length in range(1, len(whole), 7):
        path.write_bytes(whole[:length])
        assert_names(refusal(tmp_path, path, columns=Columns()), "log.parquet", "cannot be read")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_parquet_files_with_wrong_bytes_raise_nothing_but_data_errors(tmp_path: Path) -> None:
    path, items, draw = tmp_path / "log.parquet", tmp_path / "items.csv", random.Random(0)
    items.write_text(ITEMS)
    pl.DataFrame({USER: [1, 2], ITEM: ["a", "b"], TIMESTAMP: [1, 2]}).write_parquet(path)
    whole, refused = path.read_bytes(), 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= draw.randrange(1, 256)
        path.write_bytes(damaged)
        try:
            read(DataConfig(interactions=path, items=items), warn=lambda _: None)
        except DataError:
            refused += 1
    assert refused > 50


def test_a_reader_that_panics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Which bytes make the reader panic differs between its versions; that it is no Exception does not.
    def panic(*_: object, **__: object) -> None:
        raise pl.exceptions.PanicException("assertion failed")

    monkeypatch.setattr(pl, "read_parquet", panic)
    (tmp_path / "log.parquet").write_bytes(b"PAR1")
    assert_names(refusal(tmp_path, tmp_path / "log.parquet"), "log.parquet", "cannot be read: assertion failed")


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("raise SystemExit('a pickle was loaded')",))


@pytest.mark.parametrize("ending", ["npy", "npz", "pkl", "pickle", "PKL"])
def test_pickles_are_refused_and_never_loaded(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"titles.{ending}"
    path.write_bytes(pickle.dumps(Bomb()))
    assert_names(refusal(tmp_path, items=path), path.name, "pickle", "refused", ".parquet")
    assert_names(refusal(tmp_path, path, format="recbole"), path.name, "pickle", ".inter")


def test_unknown_endings_are_told_the_accepted_ones(tmp_path: Path) -> None:
    accepted = [".csv", ".csv.gz", ".tsv", ".parquet", ".jsonl", ".jsonl.gz", ".ndjson"]
    assert_names(refusal(tmp_path, tmp_path / "log.xlsx"), "log.xlsx", *accepted)
    assert_names(refusal(tmp_path, tmp_path / "log.csv", format="recbole"), "log.csv", ".inter")


def test_ids_that_match_nowhere(tmp_path: Path) -> None:
    log = tmp_path / "log.parquet"
    pl.DataFrame({USER: [1], ITEM: [7], TIMESTAMP: [1]}).write_parquet(log)
    message = refusal(tmp_path, log, "item_id,title\n007,Bond\n", columns=Columns())
    assert_names(message, "log.parquet", "items.csv", "such as 7", "such as '007'", "data.columns.item")
    assert_names(refusal(tmp_path, items="item_id,title\nx,Ant\n"), "such as 'a'", "such as 'x'")


def test_a_recbole_file_with_one_name_twice(tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_text("user_id:token\tuser_id:float\n1\t2\n")
    assert_names(refusal(tmp_path, tmp_path / "x.inter", format="recbole"), "x.inter", "same name", "user_id")


@pytest.mark.parametrize(
    ("split", "text", "says"),
    [
        ("train", "1 2\n3 x 4\n", ["line 2", "'x'"]),
        ("valid", "1 2.0\n", ["line 1", "'2.0'"]),
        ("test", "1 2\n\n1_0 2\n", ["line 3", "'1_0'"]),
        ("test", f"1 {2**63}\n", ["line 1", str(2**63)]),
        ("train", "", ["empty"]),
        ("test", "1\n2\n", ["empty"]),
        ("valid", None, ["no such file"]),
        ("train", b"1 \xff\n", ["cannot be read"]),
    ],
)
def test_bad_release_files(tmp_path: Path, split: str, text: str | bytes | None, says: list[str]) -> None:
    for name in ("train", "valid", "test"):
        (tmp_path / f"sequential_{name}.txt").write_text("1 10\n")
    path = tmp_path / f"sequential_{split}.txt"
    path.unlink()
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert_names(refusal(tmp_path, tmp_path, format="dealrec", split="column"), path.name, *says)


def test_a_release_folder_that_is_missing(tmp_path: Path) -> None:
    assert_names(refusal(tmp_path, tmp_path / "nowhere", format="dealrec"), "nowhere", "no such folder")
