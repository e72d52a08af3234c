"""Files of training rows: what is read of each, and that what is copied stands as it stood."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from dealrec.data.readers.copies import copy_records
from dealrec.data.readers.records import record_files, records
from dealrec.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"id": "a", "prompt": 'said "hi",\nand left', "completion": "naïve 東京"},
    {"id": "b", "prompt": "  padded  ", "completion": ""},
    {"id": "c", "prompt": "\u2028 line, separator", "completion": "x\ty"},
    {"id": "d", "prompt": "back\\slash", "completion": "😀"},
]


def write(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    if path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
        return path
    ending = path.name.removesuffix(".gz").rpartition(".")[2]
    if ending == "jsonl":
        text = "".join(json.dumps(row, ensure_ascii=len(row["id"]) % 2 == 0) + "\n" for row in rows)
    elif ending == "json":
        text = json.dumps(rows, indent=3)
    else:
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, list(rows[0]), delimiter="," if ending == "csv" else "\t", lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)
        text = out.getvalue()
    content = text.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


NAMES = ("x.jsonl", "x.json", "x.csv", "x.tsv", "x.parquet", "x.jsonl.gz", "x.csv.gz")


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_read_as_they_were_written(name: str, tmp_path: Path) -> None:
    assert list(records(write(tmp_path / name))) == ROWS


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kept", [[0, 2], [1], [], [0, 1, 2, 3, 4, 5, 6, 7]])
def test_what_is_kept_is_written_in_the_order_of_the_files(name: str, kept: list[int], tmp_path: Path) -> None:
    parts = [write(tmp_path / f"{number}-{name}") for number in (0, 1)]
    mask = np.zeros(2 * len(ROWS), dtype=bool)
    mask[kept] = True
    (tmp_path / "out").mkdir()
    out = copy_records(parts, mask, tmp_path / "out")
    assert out.name == f"train.{name.partition('.')[2]}"
    assert list(records(out)) == [row for row, keep in zip(ROWS * 2, mask, strict=True) if keep]


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.tsv", "x.jsonl.gz"])
def test_all_rows_of_one_file_are_that_file(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name)
    (tmp_path / "out").mkdir()
    out = copy_records([path], np.ones(len(ROWS), dtype=bool), tmp_path / "out")
    contents = [gzip.decompress(p.read_bytes()) if p.suffix == ".gz" else p.read_bytes() for p in (path, out)]
    assert contents[0] == contents[1]


@pytest.mark.parametrize("kept", [[0, 1, 2, 3, 4], [1, 3], [4]])
def test_lines_of_json_come_out_byte_for_byte(kept: list[int], tmp_path: Path) -> None:
    spaced = ['{"a":1}', ' { "a" : 1.0 , "b":[ ] }  ', '{"a":"\\u00e9"}', '{"a":"é\u2028"}', '{"b":1e3,"a":null}\r']
    (tmp_path / "in.jsonl").write_bytes("\n\n".join(spaced).encode())
    mask = np.zeros(len(spaced), dtype=bool)
    mask[kept] = True
    (tmp_path / "out").mkdir()
    out = copy_records([tmp_path / "in.jsonl"], mask, tmp_path / "out")
    assert out.read_bytes() == "\n".join(spaced[place] for place in kept).encode() + (b"" if 4 in kept else b"\n")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("begin", ["", "\ufeff"])
@pytest.mark.parametrize("name", ["x.jsonl", "x.csv"])
def test_line_ends_and_a_byte_order_mark_stay_as_they_are(name: str, begin: str, end: str, tmp_path: Path) -> None:
    """The last line has no end; it gets one, that of the others, where another part follows."""
    lines = ["a,b", "1,2", "3,4"] if name == "x.csv" else ['{"a": 1}', '{"a": 2}']
    parts = [tmp_path / f"{number}-{name}" for number in (0, 1)]
    for part in parts:
        part.write_bytes((begin + end.join(lines)).encode())
    (tmp_path / "out").mkdir()
    out = copy_records(parts[:1], np.ones(2, dtype=bool), tmp_path / "out")
    assert out.read_bytes() == parts[0].read_bytes()
    out = copy_records(parts, np.ones(4, dtype=bool), tmp_path / "out")
    assert out.read_bytes() == (begin + end.join([*lines, *lines[-2:]])).encode()


def test_parquet_keeps_its_schema_and_what_it_says_beside_it(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table(
        {"id": pa.array([1, 2, 3], pa.int16()), "messages": pa.array([[{"role": "user", "content": "x"}]] * 3)},
        metadata={"huggingface": "{}"},
    )
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    (tmp_path / "out").mkdir()
    out = copy_records([tmp_path / "a.parquet"], np.array([True, False, True]), tmp_path / "out")
    written = pq.ParquetFile(out)
    assert written.schema_arrow.equals(pq.ParquetFile(tmp_path / "a.parquet").schema_arrow, check_metadata=True)
    assert written.metadata.row_group(0).column(0).compression == "ZSTD"
    assert written.read().to_pylist() == table.take([0, 2]).to_pylist()


def test_parts_of_parquet_are_written_as_one_table(tmp_path: Path) -> None:
    """What is null throughout one part has a type in the other; few rows of many blocks make one group of rows."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parts = [
        pa.table({"id": list(range(20_000)), "note": [None] * 20_000}),
        pa.table({"id": [20_000, 20_001], "note": ["x", "y"]}),
    ]
    files = [tmp_path / f"{number}.parquet" for number in range(3)]
    for table, path in zip([*parts, pa.table({"id": ["7"], "note": ["z"]})], files, strict=True):
        pq.write_table(table, path)
    kept = np.zeros(20_002, dtype=bool)
    kept[[3, 15_000, 20_001]] = True
    (tmp_path / "out").mkdir()
    written = pq.ParquetFile(copy_records(files[:2], kept, tmp_path / "out"))
    assert written.read().to_pylist() == [
        {"id": row, "note": "y" if row > 20_000 else None} for row in (3, 15_000, 20_001)
    ]
    assert written.metadata.num_row_groups == 1
    with pytest.raises(DataError, match="a column has another type in another part"):
        copy_records(files, np.ones(20_003, dtype=bool), tmp_path / "out")


def test_a_file_that_has_changed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="there are 4 rows, and there were 5"):
        copy_records([write(tmp_path / "x.jsonl")], np.ones(5, dtype=bool), tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', r"not UTF-8 \(line 2\)"),
        ("x.csv", b"a,b\n1,2\n1,\xff\n", r"not UTF-8 \(row 2 \(line 3\)\)"),
        ("x.json", b'[{"a": 1},\n{"a": "\xff"}]', r"not UTF-8 \(line 2\)"),
        ("x.jsonl", b'{"a": 1}\n{"a": \n', "line 2 is cut or damaged"),
        ("x.json", b'[{"a": 1}, {"a"]', r"row 2 \(line 1\) is no JSON"),
        ("x.json", b'[{"a": 1}\n{"a": 2}]', r"lacks a comma after row 1"),
        ("x.json", b'[{"a": 1},]', r"row 2 \(line 1\) is no JSON"),
        ("x.json", b'[{"a": 1}]\n[{"a": 2}]', "more stands after its list: '\\[{"),
        ("x.json", b'{"data": [{"a": 1}, {"a": 2}]}', "one JSON document"),
        ("x.json", b'{\n"data": [{"a": 1}, {"a": 2}]}', "one JSON document"),
        ("x.jsonl", b'{"a": 1}\n\n \n{"a": \n', "line 4 is cut or damaged"),
        ("x.csv", b"\n\n", "there is no row in it"),
        ("x.csv", b"a,b\r1,2\r", r"its lines end in CR alone\. Convert it: cat"),
        ("x.csv", b"a;b\n1;2\n", "its columns are separated by ';'"),
        ("x.csv", b'a,b\n"1\n2",3\n\n1,2,3\n', r"row 2 \(line 5\) has 3 cells"),
        ("x.json", b'[{"a": 1}', r"without a \]"),
        ("x.csv", b'a,b\n1,"2\n3,4\n', "never closed"),
        ("x.csv", b"a,b\n1,2\n1,2,3\n", r"row 2 \(line 3\) has 3 cells, and the header 2"),
        ("x.csv", b"a,a\n1,2\n", "two columns are called 'a'"),
        ("x.jsonl", "{}\n".encode("utf-16"), "begins as UTF-16"),
        ("x.csv", "a,b\n1,2\n".encode("utf-16-le"), r"begins as UTF-16 .*iconv -f utf-16le "),
        ("x.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 999, mtime=0)[:-20], "cut or damaged"),
        ("x.jsonl", b'{"a": 1}\n[1]\n', "line 2 is no JSON object"),
        ("x.jsonl", b'{"a": 1}\n{"a": 1, "b": [{"c": 1, "c": 2}]}\n', "line 2 names 'c' twice"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=says):
        list(records(path))


def test_a_byte_order_mark_is_no_part_of_a_row(tmp_path: Path) -> None:
    for name in ("x.jsonl", "x.json", "x.csv"):
        path = write(tmp_path / name)
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert list(records(path)) == ROWS


def test_files_of_several_kinds_and_missing_ones_are_refused(tmp_path: Path) -> None:
    one, other = write(tmp_path / "x.jsonl"), write(tmp_path / "x.csv")
    with pytest.raises(DataError, match="of two kinds"):
        record_files([one, other], setting="data.rows")
    with pytest.raises(DataError, match=r"no such file\. Check data\.rows"):
        record_files([tmp_path / "y.jsonl"], setting="data.rows")
    other.rename(tmp_path / "x.txt")
    with pytest.raises(DataError, match="unknown kind"):
        record_files([tmp_path / "x.txt"], setting="data.rows")
