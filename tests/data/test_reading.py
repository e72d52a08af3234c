"""What is read of files that are nearly what they should be, and that no row is lost or invented."""

import gzip
import io
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dealrec.config import Columns, DataConfig
from dealrec.data.readers import blocks
from dealrec.data.readers.faults import read_error
from dealrec.data.readers.tables import Column, only, read_table
from dealrec.data.sources import files, read
from dealrec.data.values import ids, timestamps
from dealrec.errors import DataError

Rows = Callable[[str, str | bytes], list[tuple[Any, ...]]]


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    """Write a file of that name and read it; its rows."""

    def run(name: str, content: str | bytes) -> list[tuple[Any, ...]]:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(path).frame.rows()

    return run


def refusal(rows: Rows, name: str, content: str | bytes) -> str:
    with pytest.raises(DataError) as caught:
        rows(name, content)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Quote marks


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('id\tt\n1\t"Ant\n2\tBee\n3\tCat 7"\n', ['"Ant', "Bee", 'Cat 7"']),  # as CSV, one row of three
        ('id\tt\n1\t"Ant" hill\n2\tBee 5"\n', ['"Ant" hill', 'Bee 5"']),
        ('id\tt\n1\t"Ant" hill\n2\t"Bee"\n', ['"Ant" hill', '"Bee"']),  # what quotes nothing keeps all marks
        ('id\tt\n1\t5" disk\n2\t3" disk\n', ['5" disk', '3" disk']),
        ('id\tt\n1\t"a ""b"", c"\n2\tBee\n', ['a "b", c', "Bee"]),  # what doubles marks, quotes
        ('id\tt\n1\t"a\tb"\n2\tBee\n', ["a\tb", "Bee"]),
        ('id\tt\n1\t"two\nlines"\n2\tBee\n', ["two\nlines", "Bee"]),
        ('"id"\t"t"\n1\t"two\nlines"\n2\t"Bee"\n', ["two\nlines", "Bee"]),
    ],
)
def test_tab_separated_text_is_quoted_only_where_it_shows_that(rows: Rows, text: str, expected: list[str]) -> None:
    assert [row[1] for row in rows("items.tsv", text)] == expected
    assert [row[1] for row in rows("items.tsv.gz", gzip.compress(text.encode()))] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('id,t\n1,5" disk\n2,Bee\n3,3" disk\n', ['5" disk', "Bee", '3" disk']),
        ('id,t\n1,a "hit" b\n2,"c, d"\n', ['a "hit" b', "c, d"]),
        ('id,t\n1,"Dear all,\nthanks, Ann"\n2,"c, d"\n', ["Dear all,\nthanks, Ann", "c, d"]),
        ('id,t\n1,"C:\\dir\\"\n2,"c, d"\n', ["C:\\dir\\", "c, d"]),  # a backslash that escapes nothing
    ],
)
def test_csv_keeps_the_marks_that_enclose_nothing(rows: Rows, text: str, expected: list[str]) -> None:
    assert [row[1] for row in rows("items.csv", text)] == expected


@pytest.mark.parametrize(
    ("name", "text", "row"),
    [
        ("a.csv", 'id,t\n0,x\n1,"Ant\n2,Bee\n3,Cat 7"\n', 2),  # two rows would be gone
        ("a.csv", 'id,t\n0,"x, y"\n1,"Ant\n2,Bee\n3,Cat 7"\n', 2),
        ("a.csv", 'id,t\n0,"x, y"\n1,x\n2,"Ant" hill\n3,Bee\n', 3),
        ("a.csv", 'id,t\n0,x\n1,"Ant\n2,Bee\n', 2),  # never closed
        ("a.csv", 'id,t,u\n1,"Ant\n2,Bee,x\n3,Cat 7"\n', 1),  # the row that comes of it lacks a field
        ("a.tsv", 'id\tt\tu\n1\t"Ant\n2\tBee\tx\n3\tCat 7"\n', 1),  # rows of different lengths
        ("a.tsv", 'id\tt\tu\n1\ta\n2\t"Ant\tx\n3\tBee\n4\t"\ty\n', 2),
    ],
)
def test_a_quoted_field_that_would_swallow_rows_is_refused_with_its_row(
    rows: Rows, name: str, text: str, row: int
) -> None:
    assert f"data row {row} " in refusal(rows, name, text)


def test_quotes_escaped_as_spark_does_are_read_with_a_warning(tmp_path: Path) -> None:
    for text, expected in (
        ('id,t\n1,"The \\"Ant\\" one, part 2"\n2,Bee\n', 'The "Ant" one, part 2'),
        ('id,t\n1,"A 5\\" disk"\n2,Bee\n', 'A 5" disk'),  # an odd number of marks, by which rows would be lost
        ('id,t\n1,"A 5\\" disk\nof old"\n2,Bee\n', 'A 5" disk\nof old'),
    ):
        (tmp_path / "items.csv").write_text(text)
        (tmp_path / "log.csv").write_text("u,id,at\na,1,5\na,2,6\n")
        warnings: list[str] = []
        names = Columns(user="u", item="id", timestamp="at", title="t")
        config = DataConfig(interactions=tmp_path / "log.csv", items=tmp_path / "items.csv", columns=names)
        titles = read(config, warn=warnings.append).items["title"].to_list()
        assert titles == [expected.replace("\n", " "), "Bee"]
        assert any('lines have \\" for a quote mark' in warning for warning in warnings)


FIELDS = st.text(alphabet='ab",\t\n\\ é', max_size=5)


@pytest.mark.slow
@given(st.lists(st.tuples(FIELDS, FIELDS), min_size=1, max_size=8), st.sampled_from([",", "\t"]), st.integers(1, 40))
@settings(max_examples=300, deadline=None)
def test_what_polars_writes_is_read_as_it_was_or_refused(
    tmp_path_factory: pytest.TempPathFactory, written: list[tuple[str, str]], separator: str, size: int
) -> None:
    """Blocks of any size; a field may look as if it had swallowed rows, but none is lost or changed in silence."""
    frame = pl.DataFrame(written, schema=["a", "b"], orient="row").with_columns(c=pl.lit("x"))
    path = tmp_path_factory.mktemp("written") / ("t.csv" if separator == "," else "t.tsv")
    frame.write_csv(path, separator=separator, quote_style="always")
    before, blocks.SIZE = blocks.SIZE, size
    try:
        assert read_table(path).frame.rows() == frame.rows()
    except DataError as error:
        assert "data row" in str(error)  # noqa: PT017 - either will do
    finally:
        blocks.SIZE = before


# Encodings and kinds


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "id,t\n0,x\n1,Café\n".encode("latin1"), ["not UTF-8", "data row 2, column 't'", "iconv -f latin1"]),
        ("a.csv", 'id,t\n0,"x\ny"\n1,Café\n'.encode("latin1"), ["data row 2"]),
        ("a.tsv", "id\té\n0\tx\n".encode("latin1"), ["not UTF-8", "in the header"]),
        ("a.csv.gz", gzip.compress("id,t\n1,é\n".encode("latin1"), mtime=0), ["gzip -dc", "iconv", "a-converted.csv"]),
        ("a.jsonl", '{"t": "x"}\n{"t": "é"}\n'.encode("latin1"), ["not UTF-8", "line 2", "iconv"]),
        ("a.csv", "id,t\n1,x\n".encode("utf-16"), ["UTF-16", "iconv -f utf-16 "]),
        ("a.csv", "id,t\n1,x\n".encode("utf-16-le"), ["UTF-16", "iconv -f utf-16le "]),
        ("a.jsonl", '{"t": "é"}\n'.encode("utf-16-be"), ["UTF-16", "iconv -f utf-16be "]),
        ("a.tsv", "id\tt\n1\tx\n".encode("utf-32"), ["UTF-32", "iconv -f utf-32 "]),
        ("a.csv", b"id,t\r1,x\r", ["its lines end in CR alone", "python -c", "a-converted.csv"]),
        ("a.jsonl.gz", gzip.compress(b'{"t": 1}\r{"t": 2}', mtime=0), ["CR alone", "gzip -dc", "a-converted.jsonl"]),
        ("a.csv", gzip.compress(b"id,t\n1,2\n", mtime=0), ["packed with gzip", ".gz"]),
        ("a.csv.gz", b"id,t\n1,2\n", ["not packed with gzip"]),
        ("a.csv.gz", gzip.compress(b"id,t\n1,2\n" * 99, mtime=0)[:-9], ["cannot be read", "cut or damaged", "again"]),
        ("a.csv", b"PK\x03\x04zip", ["zip archive", "unzip"]),
        ("a.parquet", b"id,t\n1,2\n", ["not a Parquet file"]),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", ["Git LFS", "git lfs pull"]),
        ("a.jsonl", b"\n<!DOCTYPE html><html>", ["web page"]),
        ("a.csv", b"id,t\n1,x\n2,Ant, the\n", ["data row 2 has 3 fields", "header has 2", "into quotes"]),
        ("a.csv", b"id;t\n1;x\n", ["separated by ';'", "commas", "awk -F';'"]),
        ("a.csv", b'"id";"t"\n"1";"x"\n', ["separated by ';'"]),
        ("a.csv", b"id\tt\n1\tx\n", ["separated by '\\t'", "end in .tsv"]),
        ("a.dat", b"1::10::5\n2::11::4\n", ["separated by '::'", "no line of their names", '"NAME3"', "a.tsv"]),
        ("u.data", b"1\t2\t3\n4\t5\t6\n", ["separated by '\\t'", "no line of their names"]),
        ("a.txt", b"id,t\n1,x\n", ["separated by ','", ".csv"]),
        ("a.xlsx", b"PK\x03\x04zip", ["unknown kind of file", "Excel", "save the sheet as CSV"]),
    ],
)
def test_what_cannot_be_read_is_told_with_a_remedy_of_its_own(
    rows: Rows, name: str, content: bytes, says: list[str]
) -> None:
    message = refusal(rows, name, content)
    for part in says:
        assert part in message


def test_the_command_for_fields_without_names_makes_a_table(rows: Rows, tmp_path: Path) -> None:
    message = refusal(rows, "my films.dat", "10::Ant, the::A|B\n11::Bee's::A\n")
    command = message.partition("awk ")[1] + message.partition("awk ")[2]
    subprocess.run(command, shell=True, check=True)
    assert read_table(tmp_path / "my films.tsv").frame.rows() == [("10", "Ant, the", "A|B"), ("11", "Bee's", "A")]


def test_a_file_without_names_is_told_where_a_column_is_missed(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("196,242,881250949\n186,302,891717742\n")
    with pytest.raises(DataError, match="the first line holds values"):
        read(DataConfig(interactions=tmp_path / "log.csv", items=tmp_path / "log.csv"), warn=lambda _: None)


# JSON Lines


OBJECTS = '{"id": 0, "t": "Ant"}\n{"id": 1, "t": "Bee"}\n'


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.json.gz", "a.ndjson"])
@pytest.mark.parametrize(
    "text",
    [OBJECTS, "\ufeff" + OBJECTS, "\n" + OBJECTS.replace("\n", "\r\n\r\n"), OBJECTS.rstrip("\n")],
    ids=["plain", "mark", "blank", "no end"],
)
def test_json_lines_by_any_name(rows: Rows, name: str, text: str) -> None:
    content = gzip.compress(text.encode()) if name.endswith("gz") else text
    assert rows(name, content) == [(0, "Ant"), (1, "Bee")]


def test_lines_of_blanks_are_no_rows(rows: Rows) -> None:
    assert rows("a.jsonl", OBJECTS.replace("\n", "\n  \t\n\n")) == [(0, "Ant"), (1, "Bee")]
    with_nan = '{"id": 0, "p": NaN}\n \t \n{"id": 1, "p": 2}\n   '
    assert rows("a.jsonl", with_nan) == [(0, None), (1, 2)]


@pytest.mark.parametrize("beside", ["", ', "p": NaN'])
def test_half_of_a_character_is_read_as_such_and_whole_ones_as_they_are(rows: Rows, beside: str) -> None:
    """Polars reads the first half of a pair as a zero byte, and refuses the second."""
    text = "".join(
        f'{{"t": "{cut}"{beside}}}\n'
        for cut in (r"ab\ud83dcd", r"\udc00x", r"\ud83d\ud83d\ude00", r"\ud83d\ude00", r"\\ud83d", r"\uD55c")
    )
    whole = ["ab\ufffdcd", "\ufffdx", "\ufffd\U0001f600", "\U0001f600", r"\ud83d", "\ud55c"]
    assert [row[0] for row in rows("a.jsonl", text)] == whole


def test_a_name_that_is_a_value_too_is_not_there_twice(rows: Rows) -> None:
    text = '{"t": "t", "d": {"t": 1}}\n{"t": null, "d": {"t": 2}}\n{"d": {"t": 3}}\n'
    assert [row[0] for row in rows("a.jsonl", text)] == ["t", None, None]


def test_nan_is_read_as_nothing_and_other_columns_may_mix_types(rows: Rows) -> None:
    assert rows("a.jsonl", '{"id": 0, "p": 1.5}\n{"id": 1, "p": NaN}\n') == [(0, 1.5), (1, None)]
    assert [row[0] for row in rows("a.jsonl", '{"id": 0, "p": {"x": 1}}\n{"id": 1, "p": 3}\n')] == [0, 1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (OBJECTS + "{'id': 2, 'x': None}\n", ["line 3 is a Python literal", "ast.literal_eval"]),
        (OBJECTS + '{"id": 2, "t\n' + OBJECTS, ["line 3 is cut or damaged"]),
        (OBJECTS + '{"id": 2', ["line 3 is cut or damaged"]),
        (OBJECTS.replace("}\n", "},\n"), ["line 1 ends in a comma"]),
        (OBJECTS + OBJECTS.replace("\n", ""), ["line 3 holds more than one object"]),
        (OBJECTS + '{"id": -Infinity}\n', ["line 3 holds -Infinity"]),
        (OBJECTS + "null\n", ["line 3 is no JSON object"]),
        (OBJECTS + '{"id": 2, "t": "Cat", "t": "Dog"}\n', ["line 3 names 't' twice"]),
        (OBJECTS + '{"id": 2, "t": null, "t": "Dog"}\n{"id": 3}\n', ["line 3 names 't' twice"]),
        (OBJECTS + '{"id": 2, "id": 3, "p": NaN}\n', ["line 3 names 'id' twice"]),
        (OBJECTS + '{"id": 2, "d": {"a": 1, "a": 2}}\n', ["line 3 names 'a' twice"]),
        ("[1, 2]\n[3, 4]\n", ["line 1 is no JSON object"]),
        ('[{"id": 0}, {"id": 1}]', ["one JSON document", "json.load"]),
        ('[\n{"id": 0},\n{"id": 1}\n]\n', ["one JSON document", "json.load"]),
        (json.dumps([{"id": 0}], indent=1), ["one JSON document"]),
        (json.dumps({"data": [{"id": 0}]}, indent=1), ["one JSON document"]),
        ('{"id": {"0": 5}, "t": {"0": "Ant"}}\n', ["one JSON document", "lines=True"]),
    ],
)
def test_what_is_nearly_json_lines_is_named_with_its_line(rows: Rows, text: str, says: list[str]) -> None:
    message = refusal(rows, "a.jsonl", text)
    for part in says:
        assert part in message


@pytest.mark.parametrize(
    "text", ["{'id': 0, 't': 'Ant'}\n", '[{"id": 0, "t": "Ant"}]', '{\n"x": 1, "d":\n[{"id": 0, "t": "Ant"}]}\n']
)
def test_the_commands_that_convert_do_so(rows: Rows, tmp_path: Path, text: str) -> None:
    message = refusal(rows, "a.json.gz", gzip.compress(text.encode()))
    command = message.partition("Convert it: ")[2].partition(" (in pandas")[0]
    subprocess.run(command.replace("python -c", f"{sys.executable} -c"), shell=True, check=True)
    assert read_table(tmp_path / "a-converted.jsonl").frame.rows() == [(0, "Ant")]


@pytest.mark.slow
@given(st.lists(st.none() | st.integers(-9, 9) | st.text(max_size=3), min_size=1, max_size=12), st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_the_types_are_settled_by_all_blocks(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], size: int
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.jsonl"
    path.write_text("".join(json.dumps({"k": 1, "v": value}) + "\n" for value in values))
    before, blocks.SIZE = blocks.SIZE, size
    try:
        read_values = read_table(path).frame["v"].to_list()
    finally:
        blocks.SIZE = before
    text = any(isinstance(value, str) for value in values)
    assert read_values == [str(value) if text and value is not None else value for value in values]


# Tables in parts


def parts(folder: Path, kind: str, frames: Iterable[pl.DataFrame]) -> Path:
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    (folder / ".part-00000.crc").write_bytes(b"x")
    for place, frame in enumerate(frames):
        path = folder / f"part-{place:05}-5f[1].{kind}"  # the brackets would be a pattern
        if kind == "csv":
            frame.write_csv(path)
        else:
            frame.write_parquet(path)
    return folder


LOG = pl.DataFrame({"user_id": [1, 1, 2, 2], "item_id": [7, 8, 8, 7], "timestamp": [1, 2, 3, 4]})


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_folder_of_parts_is_one_table(tmp_path: Path, kind: str) -> None:
    log = parts(tmp_path / "log.parquet", kind, [LOG[:2], LOG[2:].select("timestamp", "item_id", "user_id"), LOG[:0]])
    items = parts(tmp_path / "items", kind, [pl.DataFrame({"item_id": [7, 8], "title": ["Ant", "Bee"]})])
    warnings: list[str] = []
    source = read(DataConfig(interactions=log, items=items), warn=warnings.append)
    assert source.interactions.equals(LOG)
    assert source.items["title"].to_list() == ["Ant", "Bee"]
    assert "log.parquet is a folder of 3 files, which are read as one table" in warnings
    hashed = files(DataConfig(interactions=log, items=items))
    assert [path.name[:10] for path in hashed] == ["part-00000", "part-00001", "part-00002", "part-00000"]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["train.csv", "test.csv"], ["not a file", "test.csv, train.csv"]),
        (["part-0.csv", "part-1.parquet"], ["not a file"]),
        (["a-00000-of-00003.csv", "a-00001-of-00003.csv"], ["2 of 3 shards are there"]),
        (["part-0.csv", "_delta_log/0.json"], ["Delta table", "read_delta"]),
        (["year=2020/part-0.csv"], ["a folder with folders in it (year=2020)"]),
        (["part-0.csv", "_temporary/x"], ["still being written"]),
        ([], ["no file"]),
    ],
)
def test_what_is_not_safely_one_table_is_refused(tmp_path: Path, names: list[str], says: list[str]) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("a,b\n1,2\n")
    with pytest.raises(DataError) as caught:
        read_table(folder)
    for part in says:
        assert part in str(caught.value)


def test_remedies_name_paths_with_brackets_and_quotes_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "log's [1]*.parquet"
    for part in ("y=1", "y=2"):
        (folder / part).mkdir(parents=True)
        LOG.write_parquet(folder / part / "0.parquet")
    with pytest.raises(DataError) as caught:
        read_table(folder)
    command = caught.value.remedy.partition("if they are parts of one: ")[2]
    subprocess.run(command.replace("python -c", f"{sys.executable} -c"), shell=True, check=True)
    assert len(pl.read_parquet(tmp_path / "log's [1]*-joined.parquet", glob=False)) == 2 * len(LOG)
    for number in (0, 1):
        LOG.write_csv(tmp_path / f"a[b]-0000{number}-of-00002.csv")
    assert "put a[[]b]-*-of-00002.csv into" in read_table(tmp_path / "a[b]-00000-of-00002.csv").warnings[0]
    closed = read_error(Path("it's [1].csv"), PermissionError())
    assert shlex.split(closed.remedy)[-1] == "it's [1].csv"


def test_parts_with_other_columns_are_refused(tmp_path: Path) -> None:
    folder = parts(tmp_path / "log", "csv", [LOG, LOG.rename({"item_id": "item"})])
    with pytest.raises(DataError, match=r"different columns: part-00000.* has user_id, item_id.* has user_id, item, "):
        read_table(folder)


def test_a_shard_that_is_named_alone_is_told(tmp_path: Path) -> None:
    for name in ("log-00000-of-00002.csv", "part-0000.csv", "part-0001.csv"):
        LOG.write_csv(tmp_path / name)
    assert "is one of 2 parts" in read_table(tmp_path / "log-00000-of-00002.csv").warnings[0]
    assert "is one of 2 parts" in read_table(tmp_path / "part-0000.csv").warnings[0]


@pytest.mark.parametrize("names", [("log_1.csv", "log_2.csv"), ("log-2023.csv", "log-2024.csv")])
def test_a_numbered_file_beside_its_like_is_told_of(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        (tmp_path / name).write_text("a,b\n1,2\n")
    assert f"{names[0]} is one of 2 files called log" in read_table(tmp_path / names[0]).warnings[0]
    (tmp_path / names[1]).unlink()
    assert read_table(tmp_path / names[0]).warnings == ()
    LOG.write_csv(tmp_path / "log-00000-of-00001.csv")
    assert read_table(tmp_path / "log-00000-of-00001.csv").warnings == ()


# Values that contradict their meaning


@pytest.mark.parametrize("word", ["NA", "null", "NULL", "None", "\\N", "<NA>", "nan", "N/A", " NaN "])
def test_missing_values_that_are_spelt_out(rows: Rows, tmp_path: Path, word: str) -> None:
    column = Column(Path("log.csv"), "c", pl.Series(["7", word, "8"]), text=True)
    with pytest.raises(DataError, match=r"has no id in 1 of 3 rows; .* in data row 2"):
        ids(column)
    with pytest.raises(DataError, match="data row 2"):
        timestamps(column)
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\na,1,5\n")
    (tmp_path / "items.csv").write_text(f"item_id,title\n1,Ant\n2,{word}\n3,\n")
    warnings: list[str] = []
    source = read(DataConfig(interactions=tmp_path / "log.csv", items=tmp_path / "items.csv"), warn=warnings.append)
    assert source.items["title"].to_list() == ["Ant", "2", "3"]
    assert f"2 of 3 items have no title, 1 of them with a word for it such as {word.strip()!r}" in warnings[0]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([1_700_000_000, 1_700_086_400_000, 1_700_000_002], ["another unit of time than the seconds", "data row 2"]),
        ([1_700_000_000_000_000, 1_700_086_400_000, 1_700_000_002_000], ["than the milliseconds", "data row 1"]),
        ([1.7e9, 1.7e9, 1.7e12], ["another unit", "data row 3"]),
        (["1700000000", "1700000001", "1700086400000"], ["another unit", "data row 3"]),
        ([1_700_000_000, 0, 1_700_000_001], ["before 1980 or after 2100", "data row 2"]),
        ([-1, 1_700_000_000, 1_700_000_001], ["before 1980", "data row 1"]),
        ([1_700_000_000, 28_800, 1_700_000_001, 1_700_000_002], ["before 1980", "data row 2"]),  # 1970 in Shanghai
        ([1_700_000_000_000, 1_700_000_000_001, 1_700_000_000_002, 20_240_531], ["before 1980", "data row 4"]),
        ([1_700_000_000, 9_999_999_999, 1_700_000_001], ["after 2100", "data row 2"]),
        (["NULL", "2024-05-31", "2024-06-01"], ["has no time", "data row 1"]),
    ],
)
def test_times_that_contradict_one_another(values: list[Any], says: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        timestamps(Column(Path("log.csv"), "at", pl.Series(values), text=False))
    for part in says:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        [0, 1, 2],
        [5, 1_700_000_000],
        [10**8, *range(4 * 10**8, 10**9, 10**8)],
        [1_700_000_000, 1_700_000_001],
        [-5, 0, 3],
        [0, 0],
    ],
)
def test_times_of_any_meaning_are_taken_as_they_are(values: list[int]) -> None:
    assert timestamps(Column(Path("log.csv"), "at", pl.Series(values), text=False)).to_list() == values


def test_dates_that_mark_missing_ones_are_told() -> None:
    warnings: list[str] = []
    dates = pl.Series(["1970-01-01", "2024-05-31", "9999-12-31"])
    timestamps(Column(Path("log.csv"), "at", dates, text=True), warn=warnings.append)
    assert "2 of 3 rows" in warnings[0]


def test_ids_that_a_spreadsheet_has_rounded() -> None:
    column = Column(Path("log.csv"), "isbn", pl.Series(["1.23457E+12", "9780306406157"]), text=True)
    with pytest.raises(DataError, match="a spreadsheet has rounded in 1 of 2 rows"):
        ids(column)


def test_a_column_that_is_there_twice_is_refused_where_it_is_needed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,x,x\n1,2,3\n")
    table = read_table(tmp_path / "a.csv")
    assert table.column("id", setting="data.columns.item").values.to_list() == ["1"]
    with pytest.raises(DataError, match="two columns are called 'x'"):
        table.column("x", setting="data.columns.title")


# Memory


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv", "jsonl", "csv.gz"])
def test_only_the_columns_that_are_named_are_held(tmp_path: Path, kind: str) -> None:
    """The peak of a process of its own: a column of 64 MB costs less than half of that."""
    count, text = 4000, "lorem ipsum dolor " * 900
    frame = pl.DataFrame({"id": range(count), "t": [f"Thing {i}" for i in range(count)]})
    peaks = []
    for name, table in (("narrow", frame), ("wide", frame.with_columns(w=pl.format("{}{}", pl.lit(text), "id")))):
        path = tmp_path / f"{name}.{kind}"
        if kind == "parquet":
            table.write_parquet(path, row_group_size=500)
        else:
            buffer = io.BytesIO()
            table.write_ndjson(buffer) if kind == "jsonl" else table.write_csv(
                buffer, separator="\t" if kind == "tsv" else ","
            )
            path.write_bytes(gzip.compress(buffer.getvalue(), 1) if kind.endswith("gz") else buffer.getvalue())
        peaks.append(peak_of(path))
    assert peaks[1] - peaks[0] < 32 * 2**20


def peak_of(path: Path) -> int:
    program = (
        "import sys; from pathlib import Path; from dealrec.data.readers.tables import only, read_table;"
        "read_table(Path(sys.argv[1]), only(['id', 't']));"
        "print(Path('/proc/self/status').read_text())"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    return int(done.stdout.partition("VmHWM:")[2].split()[0]) * 1024


def test_a_table_has_the_columns_that_were_asked_for(tmp_path: Path) -> None:
    LOG.write_parquet(tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet", only({"item_id", "nope"}))
    assert table.frame.columns == ["item_id"]
    assert table.names == ["user_id", "item_id", "timestamp"]
