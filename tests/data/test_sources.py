"""What `read` makes of each format, and what it accepts with a warning."""

import gzip
import json
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dealrec.columns import ITEM, RATING, SPLIT, TIMESTAMP, TITLE, USER
from dealrec.config import Columns, DataConfig
from dealrec.data.readers.tables import Column
from dealrec.data.sources import Source, files, read
from dealrec.data.titles import clean
from dealrec.data.values import timestamps

LOG = "user_id,item_id,timestamp\nu1,a,2\nu1,b,1\nu2,a,3\n"
ITEMS = "item_id,title\na,Ant\nb,Bee\n"
NUMBERED = "user_id,item_id,timestamp\n1,10,5\n1,11,6\n"

Reader = Callable[..., tuple[Source, list[str]]]


@pytest.fixture
def load(tmp_path: Path) -> Reader:
    """Write two CSV files (or take what is there) and read them; return the source and the warnings."""

    def run(log: str | Path = LOG, items: str | Path = ITEMS, **settings: Any) -> tuple[Source, list[str]]:
        paths = []
        for name, content in (("log.csv", log), ("items.csv", items)):
            path = content if isinstance(content, Path) else tmp_path / name
            if isinstance(content, str):
                path.write_text(content, encoding="utf-8")
            paths.append(path)
        warnings: list[str] = []
        config = DataConfig(interactions=paths[0], items=paths[1], **settings)
        return read(config, warn=warnings.append), warnings

    return run


def test_csv_by_hand(load: Reader) -> None:
    source, warnings = load()
    assert source.interactions.columns == [USER, ITEM, TIMESTAMP]
    assert source.interactions.rows() == [("u1", "a", 2), ("u1", "b", 1), ("u2", "a", 3)]
    assert source.items.rows() == [("a", "Ant"), ("b", "Bee")]
    assert warnings == []


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "tsv", "tsv.gz", "parquet", "jsonl", "jsonl.gz", "ndjson", "CSV"])
def test_every_kind_of_table_says_the_same(load: Reader, tmp_path: Path, ending: str) -> None:
    # The brackets would be a pattern, if names were taken for patterns.
    paths = [tmp_path / f"{name}[1].{ending}" for name in ("log", "items")]
    frames = [
        pl.DataFrame({USER: [1, 2], ITEM: [7, 8], TIMESTAMP: [5, 6], RATING: [4.5, 3.0]}),
        pl.DataFrame({ITEM: [8, 7], TITLE: ['Say "Eight", loud', "Sæven"]}),
    ]
    for path, frame in zip(paths, frames, strict=True):
        kind = ending.lower().removesuffix(".gz")
        if kind == "parquet":
            frame.write_parquet(path)
            continue
        text = frame.write_ndjson() if "json" in kind else frame.write_csv(separator="\t" if kind == "tsv" else ",")
        path.write_bytes(gzip.compress(text.encode()) if ending.endswith("gz") else text.encode())
    source, warnings = load(*paths, columns=Columns(rating="rating"))
    assert source.interactions.equals(frames[0])
    assert source.items.equals(frames[1])
    assert source.interactions.schema[ITEM] == source.items.schema[ITEM] == pl.Int64
    assert warnings == []


def test_columns_are_renamed_and_others_left_out(load: Reader) -> None:
    log = "session,asin,stars,part,x\ns9,a,4,training,1\ns9,b,3.5,Val,2\ns9,a,1,test,3\n"
    names = Columns(user="session", item="asin", timestamp=None, rating="stars", split="part", title="name")
    source, _ = load(log, "asin,name\na,Ant\nb,Bee\n", columns=names)
    assert source.interactions.columns == [USER, ITEM, TIMESTAMP, RATING, SPLIT]
    assert source.interactions.rows() == [
        ("s9", "a", 0, 4.0, "train"),
        ("s9", "b", 1, 3.5, "valid"),
        ("s9", "a", 2, 1.0, "test"),
    ]


@pytest.mark.parametrize(
    ("in_log", "in_items", "expected"),
    [
        (["10", "11"], ["11", "10"], [10, 11]),
        (["007", "8"], ["007", "8"], ["007", "8"]),
        (["7", "8"], ["7", "08"], ["7", "8"]),  # one file has text only, so both are text
        (["1.0", "2.0"], ["1", "2"], [1, 2]),  # pandas, beside a gap
        (["1.0", "2.5"], ["1.0", "2.5"], ["1.0", "2.5"]),
        (["-3", "9223372036854775807"], ["-3", "9223372036854775807"], [-3, 2**63 - 1]),
        (["9223372036854775808", "1"], ["9223372036854775808", "1"], ["9223372036854775808", "1"]),
    ],
)
def test_ids_of_csv_are_integers_only_if_nothing_is_lost(
    load: Reader, in_log: list[str], in_items: list[str], expected: list[object]
) -> None:
    log = "user_id,item_id,timestamp\n" + "".join(f"001,{item},1\n" for item in in_log)
    source, _ = load(log, "item_id,title\n" + "".join(f"{item},T{item}\n" for item in in_items))
    assert source.interactions[ITEM].to_list() == expected
    assert source.interactions[USER].to_list() == ["001", "001"]
    assert source.items.schema[ITEM] == source.interactions.schema[ITEM]


@pytest.mark.parametrize(
    ("in_log", "in_items", "expected"),
    [
        (pl.Series([1, 2], dtype=pl.UInt8), pl.Series([1.0, 2.0]), [1, 2]),
        (pl.Series([1, 2]), pl.Series(["1", "2"]), ["1", "2"]),
        (pl.Series([1.0, 2.0]), pl.Series(["1", "2"]), ["1", "2"]),
        (pl.Series(["x", "y"], dtype=pl.Categorical), pl.Series(["x", "y"]), ["x", "y"]),
        (pl.Series(["07", "8"]), pl.Series(["07", "8"]), ["07", "8"]),
    ],
)
def test_typed_ids(
    load: Reader, tmp_path: Path, in_log: pl.Series, in_items: pl.Series, expected: list[object]
) -> None:
    pl.DataFrame({USER: in_log, ITEM: in_log, TIMESTAMP: [1, 2]}).write_parquet(tmp_path / "log.parquet")
    pl.DataFrame({ITEM: in_items, TITLE: ["A", "B"]}).write_parquet(tmp_path / "items.parquet")
    source, _ = load(tmp_path / "log.parquet", tmp_path / "items.parquet")
    assert source.interactions[ITEM].to_list() == source.items[ITEM].to_list() == expected


def test_json_ids_that_are_numbers_here_and_text_there_are_text(load: Reader, tmp_path: Path) -> None:
    rows = [{USER: 1, ITEM: item, TIMESTAMP: 1} for item in [7] * 200 + ["b"]]
    (tmp_path / "log.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    source, _ = load(tmp_path / "log.jsonl", "item_id,title\n7,Seven\nb,Bee\n")
    assert source.interactions[ITEM].to_list() == ["7"] * 200 + ["b"]


DAY = 86_400_000_000  # microseconds
MAY_31 = (date(2024, 5, 31) - date(1970, 1, 1)).days * DAY


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pl.Series([3, 1], dtype=pl.UInt32), [3, 1]),
        (pl.Series([1.5, 2.0]), [1.5, 2.0]),
        (pl.Series([date(1970, 1, 2)]), [DAY]),
        (pl.Series([datetime(1970, 1, 2, 0, 0, 1)], dtype=pl.Datetime("ns")), [DAY + 1_000_000]),
        (pl.Series([datetime(1970, 1, 2, 2, tzinfo=timezone(timedelta(hours=2)))]), [DAY]),
        (pl.Series(["5", " 7 "]), [5, 7]),
        (pl.Series(["5", "7.5"]), [5.0, 7.5]),
        (pl.Series(["2024-05-31", "2024-05-31T01:00", "2024-05-31 00:00:00.5"]), [0, 3_600_000_000, 500_000]),
        (pl.Series(["2024-05-31T02:00:00+02:00", "2024-05-31 01:00:00Z"]), [0, 3_600_000_000]),
        (pl.Series(["2024-05-30 19:00:00-0500", "2024-05-31 00:00:00+00", "2024-05-31 00:00 UTC"]), [0, 0, 0]),
    ],
)
def test_times_in_all_their_forms(values: pl.Series, expected: list[float]) -> None:
    times = timestamps(Column(Path("log.csv"), "when", values, text=False))
    start = MAY_31 if values.dtype == pl.String and "-" in values[0] else 0
    assert times.to_list() == [start + time for time in expected]
    assert times.dtype in (pl.Int64, pl.Float64)


@pytest.mark.slow
@given(st.lists(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)), min_size=1))
@settings(max_examples=50, deadline=None)
def test_iso_text_orders_as_the_moments_do(moments: list[datetime]) -> None:
    column = Column(Path("x"), "when", pl.Series([moment.isoformat() for moment in moments]), text=True)
    expected = [(moment - datetime(1970, 1, 1)) // timedelta(microseconds=1) for moment in moments]
    assert timestamps(column).to_list() == expected


def test_blank_lines_at_the_end_and_a_byte_order_mark_are_no_rows(load: Reader) -> None:
    source, _ = load("\ufeff" + LOG.replace("\n", "\r\n") + "\r\n\n")
    assert source.interactions.rows() == [("u1", "a", 2), ("u1", "b", 1), ("u2", "a", 3)]


RECBOLE = {"format": "recbole", "columns": Columns(title="movie_title", rating="rating")}


def recbole_files(folder: Path) -> tuple[Path, Path]:
    log, items = folder / "ml.inter", folder / "ml.item"
    log.write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n186\t302\t4\t5.5\n"
    )
    items.write_text('item_id:token\tmovie_title:token_seq\tyear:token\n242\t"Kolya\t1996\n302\tThe 5" Disk\t\n')
    return log, items


def test_recbole_files_have_typed_headers_and_no_quoting(load: Reader, tmp_path: Path) -> None:
    source, warnings = load(*recbole_files(tmp_path), **RECBOLE)
    assert source.interactions.rows() == [(196, 242, 881250949.0, 3.0), (186, 302, 5.5, 4.0)]
    assert source.items.rows() == [(242, '"Kolya'), (302, 'The 5" Disk')]
    assert warnings == []


def release_folder(folder: Path, **lines: str) -> Path:
    texts = {"train": "1 10 11\n2 12\n3\n", "valid": "1 12\n", "test": "2  10\t10\n3 11\n"} | lines
    for split, text in texts.items():
        (folder / f"sequential_{split}.txt").write_text(text)
    return folder


def test_release_files(load: Reader, tmp_path: Path) -> None:
    folder = release_folder(tmp_path)
    source, warnings = load(folder, "item_id,title\n10,A\n11,B\n12,C\n", format="dealrec", split="time")
    assert source.interactions.columns == [USER, ITEM, TIMESTAMP, SPLIT]
    assert source.interactions.rows() == [
        (1, 10, 0, "train"), (1, 11, 1, "train"), (2, 12, 0, "train"), (1, 12, 2, "valid"),
        (2, 10, 1, "test"), (2, 10, 2, "test"), (3, 11, 0, "test"),
    ]  # fmt: skip
    assert len(warnings) == 2
    assert "data.split is 'time'" in warnings[0]
    assert warnings[1].startswith("1 of 7 interactions repeat")


def test_release_files_may_lack_validation_and_need_no_warning_with_split_column(load: Reader, tmp_path: Path) -> None:
    folder = release_folder(tmp_path, valid="", test="2 10\n")
    source, warnings = load(folder, "item_id,title\n10,A\n11,B\n12,C\n", format="dealrec", split="column")
    assert source.interactions[SPLIT].to_list() == ["train"] * 3 + ["test"]
    assert warnings == []


def test_files_are_those_that_are_read(tmp_path: Path) -> None:
    table = DataConfig(interactions=Path("a.csv"), items=Path("b.csv"))
    assert files(table) == [Path("a.csv"), Path("b.csv")]
    release = DataConfig(format="dealrec", interactions=tmp_path, items=Path("b.csv"))
    names = ["sequential_train.txt", "sequential_valid.txt", "sequential_test.txt"]
    assert files(release) == [*(tmp_path / name for name in names), Path("b.csv")]


def test_repeated_interactions_are_counted_and_kept(load: Reader) -> None:
    log = "user_id,item_id,timestamp\n1,a,1\n1,a,2\n2,a,1\n1,a,3\n1,b,1\n"
    source, warnings = load(log)
    assert source.interactions.height == 5
    (warning,) = warnings
    assert warning.startswith("2 of 5 interactions repeat an earlier one of the same user and item; ")
    assert "evaluate.exclude_seen" in warning
    assert load(log, repeats="first")[1] == []  # none will be left


def test_peculiar_titles_are_mended_and_counted(load: Reader) -> None:
    rows = ["10,", "11,  ", "12,Same", "13, Same ", '14,"two\nlines"', "15,zero\u200bwidth", f"16,{'x' * 1001}"]
    rows += ["17,\u202e", "10,Ten again", f"18,{'y' * 1000}"]
    source, warnings = load(NUMBERED, "item_id,title\n" + "\n".join(rows) + "\n")
    titles = dict(source.items.iter_rows())
    expected = {10: "Ten again", 11: "11", 12: "Same", 13: "Same", 14: "two lines", 15: "zero width", 17: "17"}
    assert {item: titles[item] for item in expected} == expected
    assert len(titles[16]) == 1001
    assert source.items[ITEM].to_list() == list(range(10, 19))
    assert [warning.split(";")[0] for warning in warnings] == [
        "1 of 10 rows of the items table repeat an item id",
        "3 of 9 items had control characters or line breaks in the title",
        "2 of 9 items have no title",
        "2 of 9 items share their title with another item",
        "1 of 9 items have a title over 1,000 characters",
    ]


def test_items_outside_the_table_are_read_all_the_same(load: Reader) -> None:
    source, _ = load(NUMBERED, "item_id,title\n11,Eleven\n99,Unsold\n")
    assert source.interactions[ITEM].to_list() == [10, 11]
    assert source.items[ITEM].to_list() == [11, 99]


@given(st.lists(st.text() | st.none(), min_size=1))
@settings(max_examples=100, deadline=None)
@pytest.mark.slow
def test_a_clean_title_is_one_line_without_edges_and_stays_as_it_is(titles: list[str | None]) -> None:
    once = clean(pl.Series(titles, dtype=pl.String))
    assert clean(once).equals(once)
    for title in once.drop_nulls():
        assert len(title.splitlines()) <= 1
        assert title == title.strip()
        assert "  " not in title
