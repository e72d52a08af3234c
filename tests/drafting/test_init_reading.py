"""`dealrec init` on files that are nearly what they should be: guesses that hold, and errors that say what to give."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from dealrec.drafting import preview
from dealrec.drafting.preview import preview as previewed
from tests.conftest import Cli
from tests.drafting.test_init import ITEM_ROWS, ITEMS, Row, log, refused, save, title, unix
from tests.drafting.test_init_choices import TIMED, drafted

PLAYED: list[Row] = [
    {
        "member": f"m{x['u']}",
        "game": title(x["i"]),
        "did": ("bought", "used")[x["r"] % 2],
        "minutes": 7 * x["u"] + x["i"],
    }
    for x in log()
]


PRICED: list[Row] = [{"game": title(i), "price": i / 3} for i in range(ITEMS)]


def columns(raw: dict[str, Any]) -> tuple[str, str, str]:
    named = raw["data"]["columns"]
    return named["user"], named["item"], named["title"]


# The name of a thing is its id


@pytest.mark.parametrize("called", ["game", "place_name", "x", "artist"])
def test_a_name_may_be_item_and_title(cli: Cli, tmp_path: Path, tiny_llm: Path, called: str) -> None:
    path = save(
        [{called if name == "game" else name: value for name, value in row.items()} for row in PLAYED],
        tmp_path / "log.csv",
    )
    _, raw = drafted(cli, path, "--out", tmp_path / "c.yaml", "--llm", tiny_llm)
    assert columns(raw) == ("member", called, called)
    assert raw["data"]["items"] == raw["data"]["interactions"] == "log.csv"
    assert cli("validate", tmp_path / "c.yaml")[0] == 0


def test_a_log_beside_another_is_no_file_of_its_items(cli: Cli, tmp_path: Path) -> None:
    names = [save(PLAYED, tmp_path / "log.csv"), tmp_path / "two.csv"]
    save([{name: row[name] for name in ("member", "game")} for row in PLAYED[::2]], names[1])
    for path in names:
        _, raw = drafted(cli, path, "--out", tmp_path / "c.yaml")
        assert raw["data"]["items"] == raw["data"]["interactions"] == path.name


def test_names_in_the_items_file_may_be_titles_and_codes_may_not(cli: Cli, tmp_path: Path) -> None:
    files = save(PLAYED, tmp_path / "a.csv"), save(PRICED, tmp_path / "b.csv")
    _, raw = drafted(cli, *files, "--out", tmp_path / "c.yaml")
    assert columns(raw) == ("member", "game", "game")
    for rows, path in ((PLAYED, files[0]), (PRICED, files[1])):
        save([{**row, "game": f"xq-{row['game'][-2:]}"} for row in rows], path)
    refused(cli("init", *files, "--out", tmp_path / "d.yaml"), "no column looks like the titles")


def test_titles_that_tell_no_items_apart_are_no_guess(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "c.yaml"
    rows = [{name: row[name] for name in ("member", "did", "minutes")} for row in PLAYED]
    result = cli("init", save(rows, tmp_path / "log.csv"), "--out", out)
    refused(result, "no column looks like the titles", "2 of 'did'", "columns.item=COLUMN", "may be item and title")
    items = [{"item": i, "label": f"Kind {'ab'[i % 2]}"} for i in range(ITEMS)]
    files = save(TIMED, tmp_path / "log.csv"), save(items, tmp_path / "items.csv")
    result = cli("init", *files, "--out", out)
    refused(result, "that tell the 40 of 'item' apart (2 of 'label' do not)", "data.columns.title=COLUMN")
    _, raw = drafted(cli, *files, "--out", out, "--set", "data.columns.title=label")
    assert raw["data"]["columns"]["title"] == "label"


def test_a_title_that_was_given_decides_what_the_items_are(cli: Cli, tmp_path: Path) -> None:
    path = save(PLAYED, tmp_path / "log.csv")
    _, raw = drafted(cli, path, "--out", tmp_path / "c.yaml", "--set", "data.columns.title=game")
    assert columns(raw) == ("member", "game", "game")
    refused(cli("init", path, "--out", tmp_path / "d.yaml", "--set", "data.columns.item=minutes"), "2 of 'did'")


def test_counts_are_no_users(cli: Cli, tmp_path: Path) -> None:
    rows = [
        {
            "usersha1": f"{x['u'] * 7919:040x}",
            "artmbid": f"{x['i']:08x}-b1",
            "artname": title(x["i"]),
            "plays": 7 * place,
        }
        for place, x in enumerate(log())
    ]
    _, raw = drafted(cli, save(rows, tmp_path / "log.tsv.csv"), "--out", tmp_path / "c.yaml")
    assert columns(raw) == ("usersha1", "artmbid", "artname")


def test_a_file_of_texts_without_names_is_told(cli: Cli, tmp_path: Path) -> None:
    lines = [f"u{x['u']:07x}f,{title(x['i'])},{x['r']}" for x in sorted(log(), key=lambda x: x["u"])]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    refused(cli("init", tmp_path / "log.csv", "--out", tmp_path / "c.yaml"), "the first line holds values")


@pytest.mark.parametrize(
    ("item", "shown"),
    [("game", "game"), ("minutes", "did"), ("minutes", "game"), ("did", "did"), ("minutes", "member")],
)
def test_what_the_user_says_is_taken(cli: Cli, tmp_path: Path, item: str, shown: str) -> None:
    path = save(PLAYED, tmp_path / "log.csv")
    said = ("--set", f"data.columns.item={item}", "--set", f"data.columns.title={shown}")
    _, raw = drafted(cli, path, "--out", tmp_path / "c.yaml", *said, "--set", "data.columns.user=member")
    assert columns(raw) == ("member", item, shown)
    if shown != "member":
        _, raw = drafted(cli, path, "--out", tmp_path / "c.yaml", *said)
        assert columns(raw) == ("member", item, shown)


def test_a_user_who_cannot_be_one_is_told_why(cli: Cli, tmp_path: Path) -> None:
    files = (
        save([{**row, "cost": row["user"] + 0.5} for row in TIMED], tmp_path / "a.parquet"),
        save(ITEM_ROWS, tmp_path / "b.parquet"),
    )
    result = cli("init", *files, "--out", tmp_path / "c.yaml", "--set", "data.columns.user=cost")
    refused(result, "column 'cost' has ids that are no whole numbers")


# Values


def test_missing_values_that_are_spelt_out_are_foretold(cli: Cli, tmp_path: Path) -> None:
    rows = [{**row, "user": "NULL" if place == 3 else f"u{row['user']}"} for place, row in enumerate(TIMED)]
    files = save(rows, tmp_path / "a.csv"), save(ITEM_ROWS, tmp_path / "b.csv")
    shown, _ = drafted(cli, *files, "--out", tmp_path / "c.yaml")
    (note,) = [note for note in shown["notes"] if note.startswith("`dealrec validate` will refuse this")]
    assert f"column 'user' has no id in 1 of {len(rows)} rows" in note
    assert "in data row 4" in note


def test_times_of_two_units_are_not_used_and_told(cli: Cli, tmp_path: Path) -> None:
    rows = [{**row, "time": row["time"] * (1000 if place % 2 else 1)} for place, row in enumerate(TIMED)]
    files = save(rows, tmp_path / "a.csv"), save(ITEM_ROWS, tmp_path / "b.csv")
    shown, raw = drafted(cli, *files, "--out", tmp_path / "c.yaml")
    assert raw["data"]["columns"]["timestamp"] is None
    (note,) = [note for note in shown["notes"] if "'time' is called like a time" in note]
    assert "another unit of time" in note
    assert "one unit" in note


# Files


def test_a_folder_says_what_kinds_are_not_read(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::10::5\n2::11::4\n")
    (tmp_path / "readme").write_text("of the data\n")
    result = cli("init", tmp_path, "--out", tmp_path / "c.yaml")
    refused(result, "no file with interactions or items", "ratings.dat", "readme", "separated by '::'", "awk -F'::'")


@pytest.mark.slow
def test_folders_of_parts_are_found_and_written_down(cli: Cli, tmp_path: Path, tiny_llm: Path) -> None:
    for name, rows in (("log.parquet", TIMED), ("items.parquet", ITEM_ROWS)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "_SUCCESS").touch()
        for place in range(2):
            save(rows[place::2], tmp_path / name / f"part-{place:05}-5f[1].parquet")
    for paths in ([tmp_path], [tmp_path / "log.parquet"], [tmp_path / "items.parquet", tmp_path / "log.parquet"]):
        shown, raw = drafted(cli, *paths, "--out", tmp_path / "c.yaml", "--llm", tiny_llm)
        assert (raw["data"]["interactions"], raw["data"]["items"]) == ("log.parquet", "items.parquet")
        assert shown["found"]["interactions"] == len(TIMED)
        assert "log.parquet is a folder of 2 files, which are read as one table" in shown["notes"]
    status, out, err = cli("validate", tmp_path / "c.yaml", "--json")
    assert status == 0, err
    assert json.loads(out)["facts"]["items"] == ITEMS


def test_a_shard_that_is_named_draws_a_note_on_the_others(cli: Cli, tmp_path: Path) -> None:
    for place in range(2):
        save(TIMED[place::2], tmp_path / f"log-0000{place}-of-00002.csv")
    items = save(ITEM_ROWS, tmp_path / "items-00000-of-00001.csv")
    shown, _ = drafted(cli, tmp_path / "log-00000-of-00002.csv", items, "--out", tmp_path / "c.yaml")
    (note,) = [note for note in shown["notes"] if "is one of 2 parts" in note]
    assert note.startswith("log-00000-of-00002.csv")


def test_names_are_no_patterns(cli: Cli, tmp_path: Path, tiny_llm: Path) -> None:
    folder = tmp_path / "a[b]?*"
    folder.mkdir()
    (tmp_path / "ab").mkdir()
    save(TIMED[:9], tmp_path / "ab" / "log1.csv")
    files = save(TIMED, folder / "log[1].csv"), save(ITEM_ROWS, folder / "items[1].parquet")
    shown, raw = drafted(cli, *files, "--out", folder / "c.yaml", "--llm", tiny_llm)
    assert shown["found"]["interactions"] == len(TIMED)
    assert raw["data"]["interactions"] == "log[1].csv"
    assert cli("validate", folder / "c.yaml")[0] == 0


def test_wide_rows_are_sampled_by_their_size_and_nested_columns_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview, "MAX_BYTES", 200_000)
    frame = pl.DataFrame({"item": range(1000), "text": ["x" * 1000] * 1000, "vector": [[0.5] * 50] * 1000})
    frame.write_parquet(tmp_path / "a.parquet", row_group_size=64)
    seen = previewed(tmp_path / "a.parquet")
    assert seen.table.frame.estimated_size() <= 200_000
    assert (seen.whole, seen.rows, list(seen.columns)) == (False, 1000, ["item", "text"])
    frame.head(50).write_parquet(tmp_path / "b.parquet")
    small = previewed(tmp_path / "b.parquet")
    assert small.whole
    assert small.table.frame.columns == ["item", "text"]


def test_the_config_that_is_written_names_the_columns_by_their_roles(cli: Cli, tmp_path: Path) -> None:
    """A time that marks missing values by 0 is told, not used."""
    rows = [{**row, "time": 0 if place == 2 else row["time"]} for place, row in enumerate(TIMED)]
    files = save(rows, tmp_path / "a.csv"), save(ITEM_ROWS, tmp_path / "b.csv")
    assert cli("init", *files, "--out", tmp_path / "c.yaml")[0] == 0
    assert yaml.safe_load((tmp_path / "c.yaml").read_text())["data"]["columns"]["timestamp"] is None
    assert unix(log()[0]["at"]) > 0


def test_ids_that_could_be_times_are_none(cli: Cli, tmp_path: Path) -> None:
    rows = [{"user": x["u"], "item": x["i"], "order_id": unix(x["at"])} for x in log()]
    files = save(rows, tmp_path / "a.csv"), save(ITEM_ROWS, tmp_path / "b.csv")
    _, raw = drafted(cli, *files, "--out", tmp_path / "c.yaml")
    assert raw["data"]["columns"]["timestamp"] is None


def test_a_title_in_the_log_is_no_user(cli: Cli, tmp_path: Path) -> None:
    rows = [{"sku": f"s-{x['i'] % 40}", "title": title(x["i"])} for x in log(items=1600)]
    result = cli("init", save(rows, tmp_path / "a.csv"), "--out", tmp_path / "c.yaml")
    refused(result, "no column looks like user ids")


def test_a_column_without_a_value_is_none(tmp_path: Path) -> None:
    void = pl.Series(["NA", None], dtype=pl.Categorical)
    pl.DataFrame({"item": [1, 2], "void": void, "null": [None, None]}).write_parquet(tmp_path / "a.parquet")
    assert list(previewed(tmp_path / "a.parquet").columns) == ["item"]
