"""What the guides promise, as written: their commands, configs and Python run, and the messages they quote are there.

A bash block that begins with `# not run by the tests` is left out, for a reason that its first line tells the reader.
"""

import ast
import json
import re
import runpy
import shlex
import shutil
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import yaml

from dealrec.api.prune import prune
from tests.conftest import Cli, made_interactions, made_items, small_settings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = ("start.md", *(f"guides/{path.name}" for path in sorted((DOCS / "guides").glob("*.md"))))
TROUBLE = DOCS / "troubleshooting.md"
NOT_RUN = "# not run by the tests"
# What takes long on the reader's data is the same command with less to do.
LESS = {
    "fidelity": [
        *("--set", "fidelity.subsets=4", "--set", "fidelity.groups=2", "--set", "fidelity.surrogates=1"),
        *("--set", "fidelity.workers=1"),
    ],
    "compare": [
        *("--set", "compare.methods=[influence]", "--set", "compare.replicates=1"),
        *("--set", "compare.random_sizes=[1, 2]"),
    ],
}

Block = tuple[str, str | None, str]  # language, title, text


def blocks(page: str) -> list[Block]:
    """Fenced blocks in their order, with the repository's files put in where a line asks for them."""
    text = re.sub(r'^--8<-- "(.+)"$', lambda m: (ROOT / m[1]).read_text(), (DOCS / page).read_text(), flags=re.M)
    found = re.findall(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', text, flags=re.M | re.DOTALL)
    return [(language, title or None, body) for language, title, body in found]


def commands(body: str) -> list[list[str]]:
    """The commands of a bash block, without comments and settings of the environment."""
    split = [shlex.split(line, comments=True) for line in body.replace("\\\n", " ").splitlines()]
    return [[word for i, word in enumerate(line) if i or "=" not in word] for line in split if line]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_llm: Path) -> Path:
    """A reader's folder: their two files, a config, and a run that is complete."""
    folder = tmp_path_factory.mktemp("reader")
    settings = small_settings(tiny_llm)
    made_interactions().write_parquet(folder / "interactions.parquet")
    made_items().write_parquet(folder / "items.parquet")
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    write_rows(folder, tiny_llm)
    settings["select"].pop("budget")
    files = (folder / "interactions.parquet", folder / "items.parquet")
    prune(*files, budget=6, run_dir=folder / "runs" / "mine", until="report", **settings)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = tmp_path / "reader"
    shutil.copytree(finished, copy)
    monkeypatch.chdir(copy)
    return copy


def write_rows(folder: Path, llm: Path) -> None:
    """Training rows of the reader's own, as three pipelines write them, and an LLM with a chat template."""
    rows: list[dict[str, Any]] = []
    for (user,), table in made_interactions().sort("user_id", "timestamp").group_by("user_id", maintain_order=True):
        items, times = table["item_id"].to_list(), table["timestamp"].to_list()
        for place in range(1, len(items)):
            history, target = items[:place], items[place]
            row = {"id": len(rows), "user": user, "history": history, "target": target, "time": times[place]}
            rows.append(row | {"prompt": f"Films {history}", "completion": f"Film {target}"})
    for name, part in (("train", rows[:150]), ("valid", rows[150:190]), ("test", rows[190:220])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    sids = pl.DataFrame(
        {
            "user_id": [row["user"] for row in rows],
            "history_item_id": [str(row["history"]) for row in rows],
            "item_id": [row["target"] for row in rows],
            "history_item_sid": [str([f"<a_{item}><b_1>" for item in row["history"]]) for row in rows],
            "item_sid": [f"<a_{row['target']}><b_1>" for row in rows],
        }
    )
    sids.write_csv(folder / "minionerec.csv")
    turns = [[("user", row["prompt"]), ("assistant", row["completion"])] for row in rows]
    chats = pl.DataFrame(
        {
            "uuid": [f"id-{row['id']}" for row in rows],
            "source": ["made"] * len(rows),
            "metadata": [json.dumps({name: row[name] for name in ("user", "history", "target")}) for row in rows],
            "messages": [
                json.dumps([{"role": role, "content": [{"type": "text", "text": text}]} for role, text in pair])
                for pair in turns
            ],
        }
    )
    (folder / "onerec").mkdir()
    for number, half in enumerate((chats[:100], chats[100:])):
        half.write_parquet(folder / "onerec" / f"part-0000{number}-of-00002.parquet")
    shutil.copytree(llm, folder / "chat-llm")
    config = json.loads((folder / "chat-llm" / "tokenizer_config.json").read_text())
    config["chat_template"] = (
        "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    (folder / "chat-llm" / "tokenizer_config.json").write_text(json.dumps(config))


def run_command(words: list[str], cli: Cli, folder: Path, llm: Path) -> None:
    """Run a command of a page here; dealrec's in this process."""
    words = [word.replace("/models/my-llm", str(llm)) for word in words]
    if words[0] == "dealrec":
        more = LESS.get(words[1], ())
        status, _, err = cli(*words[1:], *more)
        assert status == 0, (words, err)
    elif words[0] == "python":
        runpy.run_path(words[1], run_name="__main__")
    else:
        assert words[:3] == ["head", "-n", "1"], f"nothing here runs {words}"
        assert (folder / words[3]).read_text().splitlines()


def run_block(block: Block, cli: Cli, folder: Path, llm: Path) -> None:
    language, title, body = block
    if language == "bash" and not body.startswith(NOT_RUN):
        for words in commands(body):
            run_command(words, cli, folder, llm)
    elif language == "python" and title is None:
        script = folder / "script.py"
        script.write_text(body.replace("/models/my-llm", str(llm)))
        runpy.run_path(str(script), run_name="__main__")
    elif language in ("python", "yaml") and title is not None:
        (folder / title).parent.mkdir(exist_ok=True)
        body = body.replace("/models/my-chat-llm", str(folder / "chat-llm")).replace("/models/my-llm", str(llm))
        (folder / title).write_text(body)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.slow
def test_what_a_page_shows_runs_as_written(page: str, folder: Path, cli: Cli, tiny_llm: Path) -> None:
    found = blocks(page)
    assert found or page == "concepts.md"
    if page == "start.md":  # which makes these itself
        shutil.rmtree(folder / "runs")
        (folder / "config.yaml").unlink()
    for block in found:
        run_block(block, cli, folder, tiny_llm)


@pytest.mark.parametrize("page", PAGES)
def test_the_configs_of_a_page_are_ones(page: str) -> None:
    from dealrec.config.files import parse

    for language, _, body in blocks(page):
        if language == "yaml":
            parse(yaml.safe_load(body), base=ROOT)


def test_what_is_not_run_says_why() -> None:
    left_out = [body.splitlines()[0] for page in PAGES for _, _, body in blocks(page) if body.startswith(NOT_RUN)]
    assert left_out
    assert [line for line in left_out if not re.fullmatch(rf"{NOT_RUN}: .+", line)] == []


def test_the_surrogate_of_the_guide_sees_no_padding_and_no_future() -> None:
    import torch

    (body,) = (body for _, title, body in blocks("guides/surrogate.md") if title == "mean_surrogate.py")
    made: dict[str, object] = {}
    exec(compile(body, "mean_surrogate.py", "exec"), made)
    model = made["surrogate"](9, 6).double()  # type: ignore[operator]
    short, long = model(torch.tensor([[1, 2]])), model(torch.tensor([[1, 2, 3, 0]]))
    torch.testing.assert_close(short, long[:, :2])


def test_the_method_of_the_guide_takes_at_most_two_of_a_target() -> None:
    import torch

    from dealrec.selection.methods import chosen, method_of

    (body,) = (body for _, title, body in blocks("guides/baseline.md") if title == "by_loss.py")
    made: dict[str, object] = {}
    exec(compile(body, "by_loss.py", "exec"), made)
    method = method_of("by_loss", SimpleNamespace(**made))
    table = pl.DataFrame({"sample_id": range(5), "loss": [5.0, 4.0, 3.0, 2.0, 1.0], "target": [7, 7, 7, 8, 9]})
    for budget, ids in ((3, [0, 1, 3]), (5, [0, 1, 3, 4, 2])):
        assert chosen(method, table, budget, torch.Generator())["sample_id"].to_list() == ids


def quoted_messages() -> list[str]:
    return re.findall(r"^`([^`\n]+)`\n:   ", TROUBLE.read_text(), flags=re.M)


@cache
def source_texts() -> list[str]:
    """Every text in the source, with … for what is filled in; pieces that stand beside one another are one."""
    texts = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def stands_in(quoted: str, texts: list[str]) -> bool:
    """Whether a text has the fixed parts in their order, the quoted … standing for at least one thing filled in."""
    between = r"[^\n]*?"
    pattern = re.compile(between.join(re.escape(part) for part in quoted.split("…")))
    return any(pattern.search(text) for text in texts)


def test_every_message_of_troubleshooting_stands_in_the_source() -> None:
    quoted, texts = quoted_messages(), source_texts()
    assert len(quoted) > 50
    assert len(set(quoted)) == len(quoted)
    assert [message for message in quoted if not stands_in(message, texts)] == []


def test_a_message_that_nobody_says_would_be_found() -> None:
    texts = source_texts()
    assert stands_in("select.budget means … samples, above the … candidates", texts)
    assert not stands_in("select.budget means … samples, below the … candidates", texts)


@pytest.mark.slow
def test_troubleshooting_shows_what_is_said(folder: Path, cli: Cli) -> None:
    shown = [body for language, _, body in blocks("troubleshooting.md") if language == "console"]
    assert len(shown) > 3
    for body in shown:
        command, *lines = body.splitlines()
        assert command.startswith("$ dealrec ")
        status, _, err = cli(*shlex.split(command)[2:])
        assert status == 2
        for line in lines:
            assert re.search(".*".join(re.escape(part) for part in line.split("…")), err), (command, line, err)


def test_the_warnings_that_the_guide_to_the_report_lists_are_those_of_the_report() -> None:
    listed = re.findall(r"^\| `([^`]+)` \|", (DOCS / "guides" / "report.md").read_text(), flags=re.M)
    named = set()
    for path in (ROOT / "src" / "dealrec" / "reporting").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Note" and len(node.args) > 2:
                named |= {text.value for text in ast.walk(node.args[2]) if isinstance(text, ast.Constant)}
    texts = source_texts()
    assert [name for name in listed if not any(text.startswith(name) for text in texts)] == []
    assert len(listed) > 9
    unlisted = {str(text).partition(":")[0] for text in named if str(text)[:1].isupper()} - set(listed)
    assert unlisted == set()


def test_pictures_are_whole_and_described() -> None:
    from xml.etree import ElementTree

    shown = re.findall(r"!\[([^\]]+)\]\((assets/[\w-]+\.svg)\)", (DOCS / "concepts.md").read_text())
    assert len(shown) == 4
    for _, path in shown:
        root = ElementTree.parse(DOCS / path).getroot()
        space = "{http://www.w3.org/2000/svg}"
        assert [len(root.findtext(f"{space}{name}") or "") > 10 for name in ("title", "desc")] == [True, True]
