"""A first config from a look at the files: what is guessed of real namings, and what is refused."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dealrec.config.files import load
from dealrec.drafting import preview
from dealrec.drafting.draft import draft
from dealrec.drafting.names import Role, name_score
from dealrec.errors import DataError
from tests.conftest import Cli

START = datetime(2021, 3, 1, tzinfo=UTC)
USERS, ITEMS = 60, 40


def log(*, users: int = USERS, items: int = ITEMS, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of (u, i, at, r): users come and go over two years; rows are in no order."""
    draw = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        days = np.cumsum(draw.exponential(60, size=int(draw.integers(5, 11))))
        for item, day in zip(draw.permutation(items), days, strict=False):
            at = (START + timedelta(days=float(day))).replace(microsecond=0)
            rows.append({"u": user, "i": int(item), "at": at, "r": int(draw.integers(1, 6))})
    return [rows[int(place)] for place in draw.permutation(len(rows))]


def unix(at: datetime) -> int:
    return int(at.timestamp())


Row = dict[str, Any]
WORDS = ["Blue", "River", "Stone", "Night", "Golden", "Paper", "Winter"]


def title(item: int) -> str:
    return f"{WORDS[item % 7]} {WORDS[item // 7 % 7]} No. {item}"


# name: (how an interaction is written, how an item is, the columns that should be found, how the files end)
NAMINGS: dict[str, tuple[Callable[[Row], Row], Callable[[int], Row], dict[str, str | None], str]] = {
    "amazon-2014": (
        lambda x: {
            "reviewerID": f"A{x['u']:07d}X",
            "asin": f"B{x['i']:06d}",
            "reviewerName": f"Name {x['u'] % 9}",
            "helpful": [0, 1],
            "reviewText": f"I liked it {x['r']} times, and then {x['u']} times more, as it was better than others.",
            "overall": float(x["r"]),
            "summary": f"Good {x['r']}",
            "unixReviewTime": unix(x["at"]),
            "reviewTime": f"{x['at']:%m %d, %Y}",
        },
        lambda i: {
            "asin": f"B{i:06d}",
            "description": f"A long description of {title(i)} for everyone who may like it.",
            "price": 9.5 + i,
            "brand": f"Brand {i % 3}",
            "categories": [["Toys", "Games"]],
            "title": title(i),
        },
        {"user": "reviewerID", "item": "asin", "timestamp": "unixReviewTime", "rating": "overall", "title": "title"},
        "jsonl",
    ),
    "amazon-2023": (
        lambda x: {
            "rating": float(x["r"]),
            "title": f"Good {x['r']} of {x['u']}",
            "text": "Really very good.",
            "asin": f"B{x['i'] * 2 + x['r'] % 2:06d}",
            "parent_asin": f"B{x['i'] * 2:06d}",
            "user_id": f"AE{x['u']:08d}",
            "timestamp": unix(x["at"]) * 1000,
            "helpful_vote": x["r"] % 3,
            "verified_purchase": True,
        },
        lambda i: {
            "main_category": "Video Games",
            "title": title(i),
            "average_rating": 4.1,
            "rating_number": 100 + i,
            "price": "12.99",
            "store": f"Store {i % 4}",
            "parent_asin": f"B{i * 2:06d}",
        },
        {"user": "user_id", "item": "parent_asin", "timestamp": "timestamp", "rating": "rating", "title": "title"},
        "jsonl",
    ),
    "movielens": (
        lambda x: {"userId": x["u"], "movieId": x["i"], "rating": x["r"] - 0.5, "timestamp": unix(x["at"])},
        lambda i: {"movieId": i, "title": f"{title(i)} (1995)", "genres": "Comedy|Drama"},
        {"user": "userId", "item": "movieId", "timestamp": "timestamp", "rating": "rating", "title": "title"},
        "csv",
    ),
    "h-and-m": (
        lambda x: {
            "t_dat": f"{x['at']:%Y-%m-%d}",
            "customer_id": f"{x['u'] * 7919:064x}",
            "article_id": f"0{108775000 + x['i']}",
            "price": 0.0508 * x["r"],
            "sales_channel_id": 1 + x["r"] % 2,
        },
        lambda i: {
            "article_id": f"0{108775000 + i}",
            "product_code": f"0{108775 + i // 3}",
            "prod_name": title(i // 2),
            "product_type_no": 253 + i % 5,
            "product_type_name": f"Vest top {i % 5}",
            "product_group_name": "Garment Upper body",
            "graphical_appearance_name": "Solid",
            "colour_group_name": f"Colour {i % 6}",
            "index_name": "Ladieswear",
            "detail_desc": f"Jersey top with narrow shoulder straps, number {i}.",
        },
        {"user": "customer_id", "item": "article_id", "timestamp": "t_dat", "rating": None, "title": "prod_name"},
        "csv",
    ),
    "yelp": (
        lambda x: {
            "review_id": f"r{x['u']:03d}-{x['i']:03d}",
            "user_id": f"mh_{x['u']:018d}Q",
            "business_id": f"XQ{x['i']:018d}",
            "stars": float(x["r"]),
            "useful": x["r"] % 2,
            "text": f"Visit number {x['r']} was nice.",
            "date": f"{x['at']:%Y-%m-%d %H:%M:%S}",
        },
        lambda i: {
            "business_id": f"XQ{i:018d}",
            "name": title(i),
            "address": f"{i} Main Street",
            "city": "Santa Barbara",
            "stars": 4.5,
            "review_count": i + 7,
            "categories": "Doctors, Health & Medical",
        },
        {"user": "user_id", "item": "business_id", "timestamp": "date", "rating": "stars", "title": "name"},
        "jsonl",
    ),
    "sessions": (
        lambda x: {"session": x["u"], "aid": 1000 + x["i"], "ts": unix(x["at"]) * 1000, "type": "clicks"},
        lambda i: {"aid": 1000 + i, "title": title(i)},
        {"user": "session", "item": "aid", "timestamp": "ts", "rating": None, "title": "title"},
        "parquet",
    ),
    "steam": (
        lambda x: {
            "app_id": 975370 + x["i"],
            "helpful": x["r"],
            "date": x["at"].date(),
            "is_recommended": x["r"] > 2,
            "hours": 36.3 * x["r"],
            "user_id": 51580 + x["u"],
            "review_id": x["u"] * 1000 + x["i"],
        },
        lambda i: {
            "app_id": 975370 + i,
            "title": title(i),
            "date_release": START.date(),
            "win": True,
            "rating": "Mixed",
        },
        {"user": "user_id", "item": "app_id", "timestamp": "date", "rating": None, "title": "title"},
        "parquet",
    ),
    "retailrocket": (
        lambda x: {
            "timestamp": unix(x["at"]) * 1000,
            "visitorid": 257597 + x["u"],
            "event": "view",
            "itemid": 355908 + x["i"],
            "transactionid": None if x["r"] < 5 else str(x["u"]),
        },
        lambda i: {"itemid": 355908 + i, "categoryid": i % 4, "name": title(i)},
        {"user": "visitorid", "item": "itemid", "timestamp": "timestamp", "rating": None, "title": "name"},
        "csv",
    ),
    "book-crossing": (
        lambda x: {"User-ID": 276725 + x["u"], "ISBN": f"034545104X{x['i']}", "Book-Rating": x["r"]},
        lambda i: {
            "ISBN": f"034545104X{i}",
            "Book-Title": title(i),
            "Book-Author": f"Author {i}",
            "Year-Of-Publication": 1990 + i % 12,
            "Publisher": f"House {i % 5}",
        },
        {"user": "User-ID", "item": "ISBN", "timestamp": None, "rating": "Book-Rating", "title": "Book-Title"},
        "csv",
    ),
    "goodreads": (
        lambda x: {"book_id": x["i"] + 1, "user_id": x["u"] + 1, "rating": x["r"], "date_added": x["at"].isoformat()},
        lambda i: {
            "id": 5000 - i,
            "book_id": i + 1,
            "best_book_id": 2767052 + i,
            "books_count": 270,
            "authors": f"Suzanne Collins {i}",
            "original_publication_year": 2008.0,
            "original_title": title(i),
            "title": f"{title(i)} (The Hunger Games, #{i})",
            "average_rating": 4.3,
        },
        {"user": "user_id", "item": "book_id", "timestamp": "date_added", "rating": "rating", "title": "title"},
        "csv",
    ),
    "names-that-say-nothing": (
        lambda x: {"a": f"k{x['u']}", "b": f"p-{x['i']}", "c": unix(x["at"]), "d": x["r"]},
        lambda i: {"b": f"p-{i}", "x": title(i), "y": i % 3},
        {"user": "a", "item": "b", "timestamp": "c", "rating": None, "title": "x"},
        "csv",
    ),
    "japanese": (
        lambda x: {"ユーザー": x["u"], "商品": x["i"], "日時": x["at"].isoformat(), "評価": x["r"]},
        lambda i: {"商品": i, "タイトル": f"青い川 {i}"},
        {"user": "ユーザー", "item": "商品", "timestamp": "日時", "rating": "評価", "title": "タイトル"},
        "parquet",
    ),
    "names-to-be-quoted": (
        lambda x: {'user "id": #1': x["u"], "item: {a}\u2028": x["i"], " time ": unix(x["at"]), "\\rating\x7f": x["r"]},
        lambda i: {"item: {a}\u2028": i, "- title\n'": title(i)},
        {
            "user": 'user "id": #1',
            "item": "item: {a}\u2028",
            "timestamp": " time ",
            "rating": "\\rating\x7f",
            "title": "- title\n'",
        },
        "parquet",
    ),
}


def save(rows: list[Row], path: Path) -> Path:
    frame = pl.DataFrame(rows, infer_schema_length=None)
    if path.suffix == ".csv":
        frame.write_csv(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        frame.write_parquet(path)
    return path


def made(naming: str, folder: Path) -> tuple[Path, Path]:
    """The files of a naming; their own names say nothing."""
    interaction, item, _, ending = NAMINGS[naming]
    first = save([interaction(row) for row in log()], folder / f"one.{ending}")
    return first, save([item(i) for i in range(ITEMS)], folder / f"another.{ending}")


def columns_of(config: Path) -> dict[str, str | None]:
    found = load(config).data.columns
    return {name: getattr(found, name) for name in ("user", "item", "timestamp", "rating", "title")}


@pytest.mark.parametrize(
    ("role", "better", "worse"),
    [
        ("user", "user_id", "session_id"),
        ("user", "customer_id", "customer_name"),
        ("user", "uid", "pid"),
        ("item", "product_id", "product_name"),
        ("item", "article_id", "product_group_no"),
        ("item", "movieId", "userId"),
        ("timestamp", "unixReviewTime", "reviewTime"),
        ("timestamp", "timestamp_created", "timestamp_updated"),
        ("timestamp", "purchase_date", "release_date"),
        ("rating", "rating", "rating_number"),
        ("rating", "review_score", "helpful_votes"),
        ("title", "title", "name"),
        ("title", "Book-Title", "description"),
        ("title", "description", "brand_name"),
        ("title", "itemname", "user_name"),
    ],
)
def test_of_two_names_one_says_more(role: Role, better: str, worse: str) -> None:
    assert name_score(role, better) > name_score(role, worse)


@pytest.mark.slow
@pytest.mark.parametrize("swapped", [False, True], ids=["in order", "swapped"])
@pytest.mark.parametrize("naming", NAMINGS)
def test_the_columns_of_known_data_sets_are_found(cli: Cli, tmp_path: Path, naming: str, swapped: bool) -> None:
    files = made(naming, tmp_path)
    status, out, err = cli("init", *(reversed(files) if swapped else files), "--out", tmp_path / "c.yaml")
    assert status == 0, err
    assert columns_of(tmp_path / "c.yaml") == NAMINGS[naming][2]
    data = load(tmp_path / "c.yaml").data
    assert (data.interactions, data.items) == files
    assert data.split == ("time" if data.columns.timestamp else "leave-last-out")
    assert f"dealrec validate {tmp_path / 'c.yaml'}" in out


@pytest.mark.slow
@pytest.mark.parametrize("naming", NAMINGS)
def test_what_was_written_is_valid_and_the_samples_are_as_foretold(
    cli: Cli, tmp_path: Path, tiny_llm: Path, monkeypatch: pytest.MonkeyPatch, naming: str
) -> None:
    made(naming, tmp_path)
    monkeypatch.chdir(tmp_path)
    found = json.loads(cli("init", "--llm", tiny_llm, "--json")[1])
    status, out, err = cli("validate", "config.yaml", "--json")
    assert status == 0, err
    facts = json.loads(out)["facts"]
    for part, samples in found["found"]["samples"].items():
        assert facts[f"{part}_samples"] == samples
    assert found["found"]["items"] == facts["items"] == ITEMS


def test_the_files_are_found_among_others_and_paths_are_relative_to_the_config(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "my data"
    data.mkdir()
    made("movielens", data)
    save([{"tagId": i, "tag": f"tag {i}"} for i in range(9)], data / "tags.csv")
    (data / "broken.parquet").write_text("no")
    (data / "notes.txt").write_text("not data")
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(data)
    status, out, err = cli("init", "--out", "../configs/mine.yaml")
    assert status == 0, err
    raw = yaml.safe_load((tmp_path / "configs" / "mine.yaml").read_text())
    assert raw["data"]["interactions"] == "../my data/one.csv"
    assert raw["data"]["items"] == "../my data/another.csv"
    assert load(Path("../configs/mine.yaml")).data.items == data / "another.csv"
    assert "note: broken.parquet is left out" in err
    assert "Wrote ../configs/mine.yaml; next: dealrec validate ../configs/mine.yaml" in out


def test_one_file_is_joined_by_the_other_beside_it(cli: Cli, tmp_path: Path) -> None:
    interactions, items = made("sessions", tmp_path)
    for number, named in enumerate((interactions, items)):
        assert cli("init", named, "--out", tmp_path / f"{number}.yaml")[0] == 0
        data = load(tmp_path / f"{number}.yaml").data
        assert (data.interactions, data.items) == (interactions, items)


def test_one_file_with_titles_in_it_is_both(cli: Cli, tmp_path: Path, tiny_llm: Path) -> None:
    rows = [
        {
            "InvoiceNo": 536365 + row["u"] * 100 + row["i"],
            "StockCode": f"8{row['i']:04d}A",
            "Description": title(row["i"]).upper(),
            "Title": f"The order of {row['u']} on {row['at']:%A at %H:%M}",  # of the order, not of the item
            "Quantity": row["r"],
            "InvoiceDate": row["at"].isoformat(),
            "UnitPrice": 2.55,
            "CustomerID": 17850 + row["u"],
            "Country": "United Kingdom",
        }
        for row in log()
    ]
    path = save(rows, tmp_path / "retail.csv")
    out = tmp_path / "c.yaml"
    assert cli("init", path, "--llm", tiny_llm, "--out", out)[0] == 0
    found = columns_of(out)
    assert found == {
        "user": "CustomerID",
        "item": "StockCode",
        "timestamp": "InvoiceDate",
        "rating": None,
        "title": "Description",
    }
    assert load(out).data.items == path
    assert cli("validate", out)[0] == 0


@pytest.mark.slow
def test_recbole_files_are_taken_as_such(cli: Cli, tmp_path: Path, tiny_llm: Path) -> None:
    rows = [f"{x['u']}\t{x['i']}\t{x['r']}\t{unix(x['at'])}" for x in log()]
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    (tmp_path / "ml.inter").write_text("\n".join([header, *rows]) + "\n")
    items = [f"{i}\t{title(i)}\tComedy" for i in range(ITEMS)]
    (tmp_path / "ml.item").write_text(
        "\n".join(["item_id:token\tmovie_title:token_seq\tclass:token_seq", *items]) + "\n"
    )
    out = tmp_path / "c.yaml"
    for named in ([tmp_path], [tmp_path / "ml.inter"], [tmp_path / "ml.item", tmp_path / "ml.inter"]):
        assert cli("init", *named, "--llm", tiny_llm, "--out", out, "--force")[0] == 0
        data = load(out).data
        assert data.items is not None
        assert (data.format, data.interactions.name, data.items.name) == ("recbole", "ml.inter", "ml.item")
        assert (data.columns.title, data.columns.rating) == ("movie_title", "rating")
    assert cli("validate", out)[0] == 0


@pytest.mark.parametrize("valid", ["1 9\n2 9\n", ""], ids=["valid", "no valid"])
def test_the_release_layout_is_taken_as_such(cli: Cli, tmp_path: Path, tiny_llm: Path, valid: str) -> None:
    (tmp_path / "sequential_train.txt").write_text(
        "".join(f"{u} {u % 8} {(u + 1) % 8} {(u + 2) % 8}\n" for u in range(9))
    )
    (tmp_path / "sequential_valid.txt").write_text(valid)
    (tmp_path / "sequential_test.txt").write_text("3 9\n4 9\n")
    save([{"number": i, "name": title(i)} for i in range(10)], tmp_path / "games.csv")
    out = tmp_path / "c.yaml"
    status, _, err = cli("init", tmp_path, "--llm", tiny_llm, "--out", out, "--set", "surrogate.dim=8")
    assert status == 0, err
    config = load(out)
    assert (config.data.format, config.data.interactions, config.data.split) == ("dealrec", tmp_path, "column")
    assert (config.data.columns.item, config.data.columns.title) == ("number", "name")
    assert config.influence.risk == ("valid" if valid else "train")
    status, _, err = cli("validate", out)
    assert status == 0, err


def split_files(folder: Path, parts: tuple[str, ...]) -> list[Path]:
    """Each user's rows in order of time, the last ones in the later parts; their order as a column."""
    rows = []
    for user in range(USERS):
        own = sorted((row for row in log() if row["u"] == user), key=lambda row: row["at"])
        for place, row in enumerate(own):
            part = parts[max(0, place - len(own) + len(parts))]
            rows.append({"person": user, "thing": row["i"], "position": place, "fold": part})
    items = [{"thing": i, "label": title(i)} for i in range(ITEMS)]
    return [save(rows, folder / "a.parquet"), save(items, folder / "b.parquet")]


@pytest.mark.slow
@pytest.mark.parametrize("parts", [("Training", "dev", "TEST"), ("train", "test")])
def test_a_split_column_is_known_by_its_values(
    cli: Cli, tmp_path: Path, tiny_llm: Path, parts: tuple[str, ...]
) -> None:
    out = tmp_path / "c.yaml"
    assert cli("init", *split_files(tmp_path, parts), "--llm", tiny_llm, "--out", out)[0] == 0
    config = load(out)
    assert (config.data.split, config.data.columns.split) == ("column", "fold")
    assert config.data.columns.timestamp == "position"
    assert config.influence.risk == ("valid" if len(parts) == 3 else "train")
    assert cli("validate", out)[0] == 0


def test_an_order_within_users_is_no_time_to_split_at(cli: Cli, tmp_path: Path) -> None:
    files = split_files(tmp_path, ("x", "y", "z"))
    status, _, err = cli("init", *files, "--out", tmp_path / "c.yaml")
    assert status == 0
    data = load(tmp_path / "c.yaml").data
    assert (data.columns.timestamp, data.split) == ("position", "leave-last-out")
    assert "the future then leaks" in err


def test_a_time_that_cannot_be_read_is_said_and_left_out(cli: Cli, tmp_path: Path) -> None:
    first = save([{"user": x["u"], "item": x["i"], "date": f"{x['at']:%d.%m.%Y}"} for x in log()], tmp_path / "a.csv")
    second = save([{"item": i, "title": title(i)} for i in range(ITEMS)], tmp_path / "b.csv")
    status, _, err = cli("init", first, second, "--out", tmp_path / "c.yaml")
    assert status == 0
    assert load(tmp_path / "c.yaml").data.columns.timestamp is None
    assert "'date' is called like a time" in err
    assert "ISO 8601" in err


def test_times_of_one_burst_per_user_are_not_split_in_time(tmp_path: Path) -> None:
    """As in MovieLens, where a cut in time leaves hardly any user with both training and test items."""
    rows = [{"user": u, "item": (u + k) % 40, "time": u * 1000 + k} for u in range(100) for k in range(6)]
    first = save(rows, tmp_path / "a.parquet")
    second = save([{"item": i, "title": title(i)} for i in range(40)], tmp_path / "b.parquet")
    drafted = draft([first, second], folder=tmp_path)
    # 600 rows; the cuts are at rows 480 and 540, which are ends of users.
    assert yaml.safe_load(drafted.text)["data"]["split"] == "leave-last-out"
    assert "a cut in time would leave a part with 0 samples of 100 users, this leaves 100" in drafted.text


@pytest.mark.slow
@pytest.mark.parametrize(("users", "pool", "budget"), [(60, 0.4, 0.1), (10_240, 4096, 1024)])
def test_pool_and_budget_go_with_the_size(tmp_path: Path, users: int, pool: float, budget: float) -> None:
    rows = [{"user": u, "item": (u + k) % 40, "ts": k * 10**6 + u} for u in range(users) for k in range(10)]
    first = save(rows, tmp_path / "a.parquet")
    second = save([{"item": i, "title": title(i)} for i in range(40)], tmp_path / "b.parquet")
    raw = yaml.safe_load(draft([first, second], folder=tmp_path).text)
    assert (raw["pool"]["size"], raw["select"]["budget"]) == (pool, budget)


def test_every_guess_has_its_reason_beside_it(cli: Cli, tmp_path: Path) -> None:
    files = made("movielens", tmp_path)
    cli("init", *files, "--out", tmp_path / "c.yaml")
    lines = [line.strip() for line in (tmp_path / "c.yaml").read_text().splitlines()]
    rows = len(log())
    expected = {
        'user: "userId"': f"{USERS} distinct values, {rows / USERS:.1f} rows each on average",
        'item: "movieId"': f"{ITEMS} distinct values, all in another.csv, where 'movieId' has {ITEMS} in {ITEMS} rows",
        'rating: "rating"': "5 distinct values, numbers from 0.5 to 4.5",
        'title: "title"': f"{ITEMS} distinct values, ",
    }
    for line, reason in expected.items():
        assert lines[lines.index(line) - 1].startswith(f"# guessed: {reason}")
    assert lines[lines.index("split: null") - 1].startswith("# Split of the interaction")
    assert any("`dealrec config` prints" in line for line in lines[:4])


# What cannot be guessed


def refused(result: tuple[int, str, str], *words_: str) -> None:
    status, out, err = result
    assert (status, out) == (2, ""), err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    for word in words_:
        assert word in line


USER_ROWS = [{"user": x["u"], "item": x["i"]} for x in log()]
ITEM_ROWS = [{"item": i, "title": title(i)} for i in range(ITEMS)]


@pytest.mark.parametrize(
    ("first", "second", "words_"),
    [
        (USER_ROWS, [{"item": i, "price": i / 3} for i in range(9)], ["no column looks like the titles", "price (9"]),
        ([{"item": i % 40} for i in range(99)], ITEM_ROWS, ["no column looks like user ids", "data.columns.user="]),
        (USER_ROWS, [{"sku": i, "title": title(i)} for i in range(ITEMS)], ["column 'item'", "column 'sku'", "Rename"]),
        (USER_ROWS, [{"item": f"no-{i}", "title": title(i)} for i in range(9)], ["the same item ids", "'no-0'"]),
        ([{"user;item;time": "1;2;3"}], ITEM_ROWS, ["separated by ';'", "commas"]),
        ([{"196": 186, "242": 302, "881250949": 891717742}], ITEM_ROWS, ["first line holds values", "196, 242"]),
    ],
)
def test_what_cannot_be_guessed_is_refused_with_what_was_found(
    cli: Cli, tmp_path: Path, first: list[Row], second: list[Row], words_: list[str]
) -> None:
    files = save(first, tmp_path / "a.csv"), save(second, tmp_path / "b.csv")
    refused(cli("init", *files, "--out", tmp_path / "c.yaml"), *words_)
    assert not (tmp_path / "c.yaml").exists()


def test_what_is_said_is_not_guessed(cli: Cli, tmp_path: Path) -> None:
    rows = [{**row, "group": row["user"] % 7} for row in USER_ROWS]
    files = save(rows, tmp_path / "a.csv"), save([{**row, "blurb": "A b"} for row in ITEM_ROWS], tmp_path / "b.csv")
    out = tmp_path / "c.yaml"
    chosen = ("data.columns.user=group", "data.columns.title=blurb", "influence.solver.kind=lissa", "select.budget=3")
    assert cli("init", *files, "--out", out, *(part for one in chosen for part in ("--set", one)))[0] == 0
    config = load(out)
    assert (config.data.columns.user, config.data.columns.title) == ("group", "blurb")
    assert (config.influence.solver.kind, config.select.budget) == ("lissa", 3)
    lines = [line.strip() for line in out.read_text().splitlines()]
    assert not lines[lines.index('user: "group"') - 1].startswith("# guessed")
    refused(cli("init", *files, "--out", out, "--force", "--set", "select.bugdet=3"), "Did you mean select.budget?")
    refused(cli("init", *files, "--out", out, "--force", "--set", "data.columns.title=nope"), "'nope'", "blurb (1 dist")


def test_a_config_is_not_replaced_unless_told_to(cli: Cli, tmp_path: Path) -> None:
    files = made("sessions", tmp_path)
    out = tmp_path / "c.yaml"
    out.write_text("mine")
    refused(cli("init", *files, "--out", out), "c.yaml is there already", "--force")
    assert out.read_text() == "mine"
    assert cli("init", *files, "--out", out, "--force")[0] == 0
    assert load(out).data.columns.user == "session"


def test_places_and_models_that_are_not_there_are_refused(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = made("sessions", tmp_path)
    out = tmp_path / "c.yaml"
    refused(cli("init", *files, "--out", tmp_path / "nowhere" / "c.yaml"), "Cannot write", "--out")
    refused(cli("init", *files, "--out", out, "--llm", "./nowhere"), "no model directory nowhere", "--llm")
    refused(cli("init", *files, "--out", out, "--llm", tmp_path), "no config.json")
    refused(cli("init", tmp_path / "no.csv", files[0], "--out", out), "no.csv: no such file")
    refused(cli("init", tmp_path, files[0], "--out", out), "a folder, without", "Name the files")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    refused(cli("init"), "no file with interactions", "dealrec init INTERACTIONS ITEMS")
    assert not out.exists()


def test_a_model_beside_the_config_is_named_from_there(cli: Cli, tmp_path: Path, tiny_llm: Path) -> None:
    (tmp_path / "llm").symlink_to(tiny_llm)
    files = made("sessions", tmp_path)
    cli("init", *files, "--out", tmp_path / "c.yaml", "--llm", "org/model")
    assert load(tmp_path / "c.yaml").llm.model == "org/model"
    cli("init", *files, "--out", tmp_path / "c.yaml", "--llm", tmp_path / "llm", "--force")
    assert load(tmp_path / "c.yaml").llm.model == str(tiny_llm)


# Large files are looked at in part


def test_a_large_parquet_file_is_read_in_stretches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "MAX_BYTES", 1600)
    frame = pl.DataFrame({"user": range(1000), "item": [i % 40 for i in range(1000)], "tags": [[1]] * 1000})
    frame.write_parquet(tmp_path / "a.parquet", row_group_size=64)
    found = preview.preview(tmp_path / "a.parquet")
    # 10 stretches of 5 rows, from the first row to the last.
    assert found.table.frame["user"].to_list()[:7] == [0, 1, 2, 3, 4, 111, 112]
    assert found.table.frame["user"].to_list()[-1] == 999
    assert (found.table.frame.columns, found.rows) == (["user", "item"], 1000)
    assert found.seen == "50 of about 1,000 rows"


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.jsonl.gz", "a.inter"])
def test_of_a_large_text_file_the_beginning_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    import gzip

    monkeypatch.setattr(preview, "MAX_BYTES", 4000)
    draw = np.random.default_rng(0)
    rows = [{"user:token": f"u{int(draw.integers(10**9)):09d}", "item:token": i % 40} for i in range(2000)]
    if "jsonl" in name:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        mark = "\t" if name.endswith("inter") else ","
        text = "\n".join([mark.join(rows[0]), *(mark.join(map(str, row.values())) for row in rows)]) + "\n"
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    found = preview.preview(tmp_path / name)
    height = found.table.frame.height
    column = "user" if name.endswith("inter") else "user:token"
    assert found.table.frame[column].to_list() == [row["user:token"] for row in rows[:height]]
    assert 30 < height < 150
    # What is packed is read ahead by more than this whole file, so that its end seems near.
    assert height < found.rows if name.endswith("gz") else found.rows == pytest.approx(2000, rel=0.1)
    assert found.seen.startswith(f"{height:,} of about ")


def test_what_was_read_of_large_files_is_said(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = made("sessions", tmp_path)
    monkeypatch.setattr(preview, "MAX_BYTES", 4000)
    status, out, err = cli("init", *files, "--out", tmp_path / "c.yaml", "--json")
    assert status == 0, err
    rows = len(log())
    assert json.loads(out)["found"]["sampled"] == {"one.parquet": f"60 of about {rows} rows"}
    assert f"one.parquet (60 of about {rows} rows)" in (tmp_path / "c.yaml").read_text()
    assert load(tmp_path / "c.yaml").data.columns.user == "session"
    assert "users or more" in (tmp_path / "c.yaml").read_text()


# On a terminal, what is ambiguous is asked


def on_a_terminal(command: list[str], typed: str, cwd: Path) -> tuple[int, str]:
    """Status and all that was shown; stdin, stdout and stderr are a terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(command, cwd=cwd, stdin=follower, stdout=follower, stderr=follower, close_fds=True)
    os.close(follower)
    os.write(leader, typed.encode())
    shown = b""
    try:
        while chunk := os.read(leader, 4096):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(leader)
    return process.wait(), shown.decode()


@pytest.mark.parametrize(("typed", "user"), [("\n", "user_id"), ("nope\nuser_code\n", "user_code")])
@pytest.mark.slow
def test_on_a_terminal_the_ambiguous_is_asked(tmp_path: Path, typed: str, user: str) -> None:
    rows = [{**row, "user_id": row["user"], "user_code": f"c{row['user'] % 50}"} for row in USER_ROWS]
    save([{name: row[name] for name in ("user_id", "user_code", "item")} for row in rows], tmp_path / "a.csv")
    save(ITEM_ROWS, tmp_path / "b.csv")
    command = [sys.executable, "-m", "dealrec", "init"]
    status, shown = on_a_terminal(command, typed, tmp_path)
    assert status == 0, shown
    assert "Which column of a.csv holds the users? There are user_id, user_code" in shown
    assert load(tmp_path / "config.yaml").data.columns.user == user
    (tmp_path / "config.yaml").unlink()
    done = subprocess.run(command, cwd=tmp_path, input="", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Which" not in done.stderr + done.stdout
    assert load(tmp_path / "config.yaml").data.columns.user == "user_id"


# Whatever the columns are called

names = st.text(min_size=1, max_size=12).filter(lambda name: name.strip() and "\x00" not in name)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(called=st.lists(names, min_size=4, max_size=4, unique=True), swapped=st.booleans())
@example(called=["0", "1", "*", "^.*$"], swapped=False)
@pytest.mark.slow
def test_any_name_of_a_column_survives_the_config(tmp_path: Path, called: list[str], swapped: bool) -> None:
    user, item, other, text = called
    first = save([{user: f"k{x['u']}", item: f"p-{x['i']}", other: x["r"]} for x in log()], tmp_path / "a.parquet")
    second = save([{item: f"p-{i}", text: title(i)} for i in range(ITEMS)], tmp_path / "b.parquet")
    out = tmp_path / "c.yaml"
    said = {"user": user, "item": item, "title": text}
    overrides = [f"data.columns.{role}={yaml.safe_dump(name, width=10**9)}" for role, name in said.items()]
    out.write_text(draft([second, first] if swapped else [first, second], folder=tmp_path, overrides=overrides).text)
    found = columns_of(out)
    assert {role: found[role] for role in said} == said
    assert load(out).data.interactions == first


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.slow
def test_the_order_of_the_columns_does_not_matter(tmp_path: Path, data: st.DataObject) -> None:
    naming = data.draw(st.sampled_from(sorted(set(NAMINGS) - {"amazon-2014"})))
    first, second = (pl.DataFrame(rows) for rows in _rows(naming))
    files = []
    for name, frame in (("a", first), ("b", second)):
        frame.select(data.draw(st.permutations(frame.columns))).write_parquet(tmp_path / f"{name}.parquet")
        files.append(tmp_path / f"{name}.parquet")
    raw = yaml.safe_load(draft(files, folder=tmp_path).text)
    assert {role: raw["data"]["columns"][role] for role in NAMINGS[naming][2]} == NAMINGS[naming][2]


def _rows(naming: str) -> tuple[list[Row], list[Row]]:
    interaction, item, _, _ = NAMINGS[naming]
    return [interaction(row) for row in log()], [item(i) for i in range(ITEMS)]


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"x")
    with pytest.raises(DataError, match="pickle"):
        draft([tmp_path / "a.pkl", tmp_path / "a.pkl"], folder=tmp_path)
