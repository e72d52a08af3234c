"""Which files `dealrec init` takes, what it does with what was said, and what it says of the rest."""

import json
import os
import pty
import select
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from dealrec.config.files import load
from dealrec.drafting.names import name_score
from tests.conftest import Cli
from tests.drafting.test_init import ITEM_ROWS, ITEMS, START, USER_ROWS, Row, log, refused, save, title, unix

pytestmark = pytest.mark.slow  # terminals and whole drafts

TIMED = [{"user": x["u"], "item": x["i"], "time": unix(x["at"])} for x in log()]
MANY_USERS = [{"user": u, "item": (u + k) % 40, "time": u * 1000 + k} for u in range(100) for k in range(6)]


def drafted(cli: Cli, *arguments: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `init --json` prints, and the config as it was written."""
    status, out, err = cli("init", *arguments, "--json", "--force")
    assert status == 0, err
    shown = json.loads(out)
    return shown, yaml.safe_load(Path(shown["config"]).read_text())


def value_of(shown: dict[str, Any], key: str) -> Any:
    (found,) = [made for made in shown["guesses"] if made["key"] == key]
    return found["value"]


# Files


def test_the_file_that_was_named_is_used_though_others_fit_better(cli: Cli, tmp_path: Path) -> None:
    save(TIMED, tmp_path / "ratings.csv")
    save(ITEM_ROWS, tmp_path / "items.csv")
    named = save([{"a": x["user"], "item": x["item"], "c": x["time"]} for x in TIMED], tmp_path / "clicks.csv")
    _, raw = drafted(cli, named, "--out", tmp_path / "c.yaml")
    assert (raw["data"]["interactions"], raw["data"]["items"]) == ("clicks.csv", "items.csv")
    _, raw = drafted(cli, tmp_path, "--out", tmp_path / "c.yaml")
    assert raw["data"]["interactions"] == "ratings.csv"


def test_a_named_file_that_is_both_is_not_joined_by_strangers(cli: Cli, tmp_path: Path) -> None:
    save(TIMED, tmp_path / "ratings.csv")
    save(ITEM_ROWS, tmp_path / "items.csv")
    rows = [{"customer": f"c{x['u']}", "sku": f"s-{x['i']}", "title": title(x["i"])} for x in log()]
    named = save(rows, tmp_path / "retail.csv")
    _, raw = drafted(cli, named, "--out", tmp_path / "c.yaml")
    assert raw["data"]["interactions"] == raw["data"]["items"] == "retail.csv"
    assert (raw["data"]["columns"]["user"], raw["data"]["columns"]["item"]) == ("customer", "sku")


def test_a_file_that_is_both_is_found_in_a_folder_with_strangers(cli: Cli, tmp_path: Path) -> None:
    rows = [{"customer": f"c{x['u']}", "sku": f"s-{x['i']}", "title": title(x["i"])} for x in log()]
    save(rows, tmp_path / "retail.csv")
    save([{"country": f"C{i}", "area": i / 3} for i in range(5)], tmp_path / "countries.csv")
    _, raw = drafted(cli, tmp_path, "--out", tmp_path / "c.yaml")
    assert raw["data"]["interactions"] == raw["data"]["items"] == "retail.csv"
    # A file of items fits better than titles in the log.
    save([{"sku": f"s-{i}", "name": title(i)} for i in range(ITEMS)], tmp_path / "skus.csv")
    _, raw = drafted(cli, tmp_path, "--out", tmp_path / "c.yaml")
    assert (raw["data"]["items"], raw["data"]["columns"]["title"]) == ("skus.csv", "name")


def test_files_of_the_same_kind_that_are_not_used_are_named(cli: Cli, tmp_path: Path) -> None:
    for year in (2022, 2023, 2024):
        save(TIMED, tmp_path / f"train_{year}.csv")
    save(ITEM_ROWS, tmp_path / "items.csv")
    save([{"country": f"C{i}", "area": i} for i in range(5)], tmp_path / "unrelated.csv")
    save([{"user": row["user"], "item": row["item"], "tag": "fun"} for row in TIMED[:9]], tmp_path / "tags.csv")
    shown, _ = drafted(cli, tmp_path / "train_2023.csv", "--out", tmp_path / "c.yaml")
    (note,) = [note for note in shown["notes"] if note.startswith("not used")]
    assert note.startswith("not used: train_2022.csv, train_2024.csv, with the same columns as train_2023.csv")
    shown, _ = drafted(cli, tmp_path / "train_2023.csv", tmp_path / "items.csv", "--out", tmp_path / "c.yaml")
    assert not [note for note in shown["notes"] if note.startswith("not used")]


def test_too_many_neighbours_are_said(cli: Cli, tmp_path: Path) -> None:
    for number in range(21):
        save([{"k": number}], tmp_path / f"part-{number}.csv")
    named = save(TIMED, tmp_path / "ratings.csv")
    refused(cli("init", named, "--out", tmp_path / "c.yaml"), "21 files beside ratings.csv", "INTERACTIONS ITEMS")


UNREADABLE = {
    "zero": (b"", "0 bytes"),
    "header": (b"item,title\n", "no rows"),
    "latin": ("item,title\n1,Caf\xe9\n".encode("latin-1"), "cannot be read"),
    "semicolons": (b"item;title\n1;A long walk\n", "separated by ';'"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("folder", [False, True], ids=["named", "folder"])
def test_why_files_were_left_out_is_said_where_guessing_fails(
    cli: Cli, tmp_path: Path, kind: str, folder: bool
) -> None:
    data, reason = UNREADABLE[kind]
    (tmp_path / "items.csv").write_bytes(data)
    named = save(TIMED, tmp_path / "ratings.csv")
    result = cli("init", tmp_path if folder else named, "--out", tmp_path / "c.yaml")
    refused(result, "No file of items was found beside it", "items.csv is left out", reason)
    named.unlink()
    (tmp_path / "also.csv").write_bytes(b"")
    refused(cli("init", tmp_path, "--out", tmp_path / "c.yaml"), "also.csv", "items.csv", reason)


@pytest.mark.parametrize(
    ("name", "text", "missing"),
    [
        ("ratings.csv", "user,item,time\n1,2,3\n2,2,4\n1,3,5\n", "items"),
        ("items.csv", "item,title\n1,A long walk\n2,Blue stone\n", "interactions"),
        ("a.inter", "user_id:token\titem_id:token\n1\t2\n", "items"),
        ("a.item", "item_id:token\ttitle:token_seq\n1\tA walk\n", "interactions"),
    ],
)
def test_of_a_file_alone_the_other_is_missed(cli: Cli, tmp_path: Path, name: str, text: str, missing: str) -> None:
    (tmp_path / name).write_text(text)
    for named in (tmp_path, tmp_path / name):
        result = cli("init", named, "--out", tmp_path / "c.yaml")
        refused(result, f"No file of {missing} was found beside", "dealrec init INTERACTIONS ITEMS")


def test_a_name_that_begins_like_a_home_is_written_so_that_it_is_found(
    cli: Cli, tmp_path: Path, tiny_llm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(TIMED, tmp_path / "~x.csv")
    save(ITEM_ROWS, tmp_path / "items.csv")
    (tmp_path / "~nobody-here").symlink_to(tiny_llm)
    monkeypatch.chdir(tmp_path)
    _, raw = drafted(cli, "~x.csv", "items.csv", "--llm", "~nobody-here")
    assert raw["data"]["interactions"] == str(tmp_path / "~x.csv")
    assert load(Path("config.yaml")).data.interactions == tmp_path / "~x.csv"
    assert load(Path("config.yaml")).llm.model == str(tiny_llm)


def test_what_the_system_refuses_is_one_line(cli: Cli, tmp_path: Path) -> None:
    files = save(TIMED, tmp_path / "a.csv"), save(ITEM_ROWS, tmp_path / "b.csv")
    long = tmp_path / ("x" * 300)  # longer than any file system takes
    refused(cli("init", long, "--out", tmp_path / "c.yaml"), "Cannot look at", "Check the path")
    refused(cli("init", *files, "--out", long), "Cannot look at", "--out")
    refused(cli("init", *files, "--out", long, "--force"), "Cannot write", "--out")
    refused(cli("init", *files, "--llm", f"{long}", "--out", tmp_path / "c.yaml"), "Cannot look at", "--llm")


def test_a_closed_folder_is_one_line(cli: Cli, tmp_path: Path) -> None:
    files = save(TIMED, tmp_path / "a.csv"), save(ITEM_ROWS, tmp_path / "b.csv")
    closed, out = tmp_path / "closed", tmp_path / "c.yaml"
    closed.mkdir(mode=0)
    if os.access(closed, os.X_OK):
        pytest.skip("nothing is closed to root")
    refused(cli("init", closed / "a.csv", "--out", out), "Permission denied", "Check the path")
    refused(cli("init", *files, "--out", closed / "c.yaml"), "Permission denied", "--out")
    refused(cli("init", *files, "--out", out, "--llm", closed / "m"), "Permission denied", "--llm")
    (tmp_path / "b.csv").chmod(0)
    refused(cli("init", tmp_path / "a.csv", "--out", out), "b.csv is left out", "Permission denied")


# What is said


def test_a_split_that_was_said_is_the_one_that_is_counted_and_shown(cli: Cli, tmp_path: Path) -> None:
    files = save(MANY_USERS, tmp_path / "a.parquet"), save(ITEM_ROWS, tmp_path / "b.parquet")
    out = tmp_path / "c.yaml"
    shown, raw = drafted(cli, *files, "--out", out)
    assert raw["data"]["split"] == "leave-last-out"
    assert shown["found"]["samples"] == {"train": 100, "valid": 100, "test": 100}
    # 600 rows in order of the users: the cuts at rows 390 and 585 are in users 65 (of 6 rows) and 97.5.
    cuts = ("data.split=time", "data.valid_share=0.325", "data.test_share=0.025")
    shown, raw = drafted(cli, *files, "--out", out, *(part for cut in cuts for part in ("--set", cut)))
    assert (raw["data"]["split"], value_of(shown, "data.split")) == ("time", "time")
    assert shown["found"]["samples"] == {"train": 65, "valid": 0, "test": 1}
    assert not any("leave" in note for note in shown["notes"])
    assert "guessed: a cut" not in out.read_text()
    _, text, _ = cli("init", *files, "--out", out, "--force", *(part for cut in cuts for part in ("--set", cut)))
    assert "split: time" in text
    assert "train samples: 65" in text


@pytest.mark.parametrize("said", [{}, {"min_rating": 3}, {"repeats": "first"}, {"k_core": 3, "min_rating": 2}], ids=str)
def test_samples_are_counted_after_the_filters_that_were_said(
    cli: Cli, tmp_path: Path, tiny_llm: Path, said: dict[str, Any]
) -> None:
    rows = [{"user": x["u"], "item": x["i"] // 4, "time": unix(x["at"]), "rating": x["r"]} for x in log()]
    items = [{"item": i, "title": title(i)} for i in range(ITEMS // 4)]
    files = save([*rows, *rows[::7]], tmp_path / "a.csv"), save(items, tmp_path / "b.csv")
    overrides = [part for name, value in said.items() for part in ("--set", f"data.{name}={value}")]
    shown, _ = drafted(cli, *files, "--llm", tiny_llm, "--out", tmp_path / "c.yaml", *overrides)
    status, out, err = cli("validate", tmp_path / "c.yaml", "--json")
    assert status == 0, err
    facts = json.loads(out)["facts"]
    assert shown["found"]["samples"] == {part: facts[f"{part}_samples"] for part in ("train", "valid", "test")}


def test_filters_that_leave_nothing_are_told(cli: Cli, tmp_path: Path) -> None:
    rows = [{**row, "rating": place % 5} for place, row in enumerate(TIMED)]
    files = save(rows, tmp_path / "a.csv"), save(ITEM_ROWS, tmp_path / "b.csv")
    shown, _ = drafted(cli, *files, "--out", tmp_path / "c.yaml", "--set", "data.min_rating=9")
    assert [
        note for note in shown["notes"] if note.startswith("`dealrec validate` will refuse this: no interaction is")
    ]


@pytest.mark.parametrize(
    "said", ["data.columns.user=group", "data.columns={user: group}", "data={columns: {user: group}, k_core: 2}"]
)
def test_a_section_that_was_said_is_merged(cli: Cli, tmp_path: Path, said: str) -> None:
    rows = [{**row, "group": row["user"] % 7} for row in USER_ROWS]
    files = save(rows, tmp_path / "a.csv"), save(ITEM_ROWS, tmp_path / "b.csv")
    shown, raw = drafted(cli, *files, "--out", tmp_path / "c.yaml", "--set", said, "--set", "select={budget: 7}")
    data = raw["data"]
    assert (data["interactions"], data["columns"]["user"], data["columns"]["item"]) == ("a.csv", "group", "item")
    assert (value_of(shown, "data.columns.user"), value_of(shown, "select.budget")) == ("group", 7)
    assert raw["select"]["budget"] == 7
    assert shown["found"]["users"] == 7


def test_what_cannot_be_said_is_refused(cli: Cli, tmp_path: Path) -> None:
    files = save(USER_ROWS, tmp_path / "a.csv"), save(ITEM_ROWS, tmp_path / "b.csv")
    init = ("init", *files, "--out", tmp_path / "c.yaml", "--set")
    refused(cli(*init, "data.columns.category=nope"), "No file has a column 'nope'", "data.columns.category")
    refused(cli(*init, "data.items=other.csv"), "data.items is set", "dealrec init INTERACTIONS ITEMS")
    refused(cli(*init, "data=3"), "data = 3")
    refused(cli(*init, "data.split=column"), "data.columns.split")
    refused(cli(*init, "data.split=never"), "data.split")
    refused(cli(*init, "recommender=tiger"), "data.warm_share")
    refused(cli(*init, "selects={budget: 7}"), "Unknown setting 'selects'")


def test_users_with_one_interaction_each_are_said_to_give_no_samples(cli: Cli, tmp_path: Path) -> None:
    rows = [{"user": u, "item": u % 40, "time": unix(START) + u} for u in range(200)]
    save(rows, tmp_path / "a.csv")
    save(ITEM_ROWS, tmp_path / "b.csv")
    shown, _ = drafted(cli, tmp_path, "--out", tmp_path / "c.yaml")
    assert shown["found"]["samples"]["train"] == 0
    assert any("there are no training samples" in note for note in shown["notes"])
    assert cli("validate", tmp_path / "c.yaml")[0] == 2


def test_an_llm_that_was_named_is_not_missed(cli: Cli, tmp_path: Path, tiny_llm: Path) -> None:
    files = save(USER_ROWS, tmp_path / "a.csv"), save(ITEM_ROWS, tmp_path / "b.csv")
    tiger = ["--set", "recommender=tiger", "--set", "data.warm_share=0.5"]
    for arguments in (["--llm", tiny_llm], ["--set", "llm={model: org/model}"], tiger):
        shown, _ = drafted(cli, *files, "--out", tmp_path / "c.yaml", *arguments)
        assert not any("no LLM was named" in note for note in shown["notes"])
    shown, raw = drafted(cli, *files, "--out", tmp_path / "c.yaml")
    assert f"no LLM was named: llm.model is {raw['llm']['model']}" in str(shown["notes"])
    assert raw["llm"]["prompt"]["max_items"] == load(tmp_path / "c.yaml").llm.prompt.max_items


# Categories


@pytest.mark.parametrize(
    ("better", "worse"), [("genres", "genre_rank"), ("department", "department_id"), ("class", "classification")]
)
def test_categories_are_known_by_name(better: str, worse: str) -> None:
    assert name_score("category", better) > name_score("category", worse)


@pytest.mark.parametrize(
    ("column", "values", "found"),
    [
        ("category", ["Kitchen|Home", "Toys"], {"category": "category", "category_separator": "|"}),
        ("genres", ["War; Drama", "War"], {"category": "genres", "category_separator": ";"}),
        ("department", ["Home, Garden", "Toys"], {"category": "department"}),
        ("department_id", ["d1", "d2"], {}),
        ("category", ["only this"], {}),
        ("category", None, {}),  # one for each item: no category of any
        ("kind", [1, 2], {}),  # numbers may be anything
    ],
)
def test_categories_are_guessed(
    cli: Cli, tmp_path: Path, column: str, values: list[Any] | None, found: dict[str, str]
) -> None:
    values = values or [f"c{i}" for i in range(ITEMS)]
    items: list[Row] = [{"item": i, "title": title(i), column: values[i % len(values)]} for i in range(ITEMS)]
    files = save(USER_ROWS, tmp_path / "a.parquet"), save(items, tmp_path / "b.parquet")
    shown, raw = drafted(cli, *files, "--out", tmp_path / "c.yaml")
    written = {name: raw["data"]["columns"].get(name) for name in ("category", "category_separator")}
    assert {name: value for name, value in written.items() if value is not None} == found
    assert {made["key"].removeprefix("data.columns.") for made in shown["guesses"] if "categ" in made["key"]} == set(
        found
    )
    _, raw = drafted(cli, *files, "--out", tmp_path / "c.yaml", "--set", "data.columns.category=null")
    assert raw["data"]["columns"].get("category") is None


def test_the_classes_of_recbole_are_separated_as_the_format_says(cli: Cli, tmp_path: Path, tiny_llm: Path) -> None:
    rows = [f"{x['u']}\t{x['i']}\t{unix(x['at'])}" for x in log()]
    (tmp_path / "ml.inter").write_text("\n".join(["user_id:token\titem_id:token\ttimestamp:float", *rows]) + "\n")
    # 40 different texts of 6 names: those of the bits of 1 to 40.
    items = [f"{i}\t{title(i)}\t{' '.join(f'C{bit}' for bit in range(6) if i + 1 >> bit & 1)}" for i in range(ITEMS)]
    header = "item_id:token\tmovie_title:token_seq\tclass:token_seq"
    (tmp_path / "ml.item").write_text("\n".join([header, *items]) + "\n")
    shown, raw = drafted(cli, tmp_path, "--llm", tiny_llm, "--out", tmp_path / "c.yaml")
    assert raw["data"]["columns"]["category"] == "class"
    assert raw["data"]["columns"].get("category_separator") is None
    (reason,) = [made["reason"] for made in shown["guesses"] if made["key"] == "data.columns.category"]
    assert "40 distinct values, 6 categories, e.g. 'C0'" in reason
    assert cli("validate", tmp_path / "c.yaml")[0] == 0


def test_a_column_of_lists_may_be_said_to_hold_the_categories(cli: Cli, tmp_path: Path, tiny_llm: Path) -> None:
    items = pl.DataFrame([{**row, "labels": ["War", "Drama"]} for row in ITEM_ROWS])
    items.write_parquet(tmp_path / "b.parquet")
    files = save(USER_ROWS, tmp_path / "a.parquet"), tmp_path / "b.parquet"
    said = ("--set", "data.columns.category=labels", "--llm", tiny_llm)
    _, raw = drafted(cli, *files, "--out", tmp_path / "c.yaml", *said)
    assert raw["data"]["columns"]["category"] == "labels"
    assert cli("validate", tmp_path / "c.yaml")[0] == 0


# Ctrl-C and Ctrl-D at a question


@pytest.mark.parametrize("typed", ["\x03", "\x04"], ids=["Ctrl-C", "Ctrl-D"])
def test_a_question_can_be_left(tmp_path: Path, typed: str) -> None:
    rows = [{"user_id": x["user"], "user_code": f"c{x['user'] % 50}", "item": x["item"]} for x in USER_ROWS]
    save(rows, tmp_path / "a.csv")
    save(ITEM_ROWS, tmp_path / "b.csv")
    status, shown = typed_at_the_question([sys.executable, "-m", "dealrec", "init"], typed, tmp_path)
    assert (status, "interrupted" in shown, "Traceback" in shown) == (130, True, False), shown
    assert not (tmp_path / "config.yaml").exists()


LONG, PAUSE = 60.0, 1.0  # seconds: what hangs for so long is ended; who is silent for so long waits for an answer


def typed_at_the_question(command: list[str], typed: str, cwd: Path) -> tuple[int, str]:
    """Status, and what was shown on the terminal that the command has to itself; typed whenever it waits."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(cwd)
        os.execv(command[0], command)
    timer = threading.Timer(LONG, os.kill, (child, signal.SIGKILL))
    timer.start()
    shown = b""
    try:
        while True:
            if select.select([terminal], [], [], PAUSE)[0]:
                shown += os.read(terminal, 4096)
            elif b"]: " in shown and b"interrupted" not in shown:
                os.write(terminal, typed.encode())
    except OSError:  # the other end is closed
        pass
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    timer.cancel()
    os.close(terminal)
    return status, shown.decode()
