"""What docs/security.md promises: no code of others is run, no path leads elsewhere, no text breaks what shows it."""

import ast
import gzip
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table

from dealrec.cli.console import PlainConsole
from dealrec.comparing.replicates import replicate_config
from dealrec.config import Config
from dealrec.config.files import load
from dealrec.data.readers import blocks, records
from dealrec.data.readers.tables import read_table
from dealrec.errors import ConfigError, DataError, ModelError
from dealrec.recommenders.files import check_directory, encoder_modules
from tests.conftest import Cli

SOURCES = sorted((Path(__file__).parent.parent / "src" / "dealrec").rglob("*.py"))
PICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# Calls that unpickle, run what they are given, or may. `eval` of a model is a method of it, not the builtin.
OPENING = {"torch.load", "np.load", "numpy.load", "pl.read_excel", "pd.read_pickle", "yaml.load", "yaml.unsafe_load"}
OPENING |= {"eval", "exec", "os.system", "compile", "__import__", "load_dataset"}
OWN_PICKLE = "launching.py"  # writes a job for the processes that it starts, which check that it is that one


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_unpickles_and_no_code_of_a_model_is_run(path: Path) -> None:
    names = {
        (alias.name if isinstance(node, ast.Import) else str(node.module)).partition(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert path.name == OWN_PICKLE or not names & PICKLING
    for name, call in calls(path):
        options = {option.arg: ast.unparse(option.value) for option in call.keywords}
        assert name not in OPENING
        assert options.get("allow_pickle", "False") == options.get("shell", "False") == "False"
        if re.match(r"Auto\w+\.from_(pretrained|config)|SentenceTransformer$", name):
            assert options["trust_remote_code"] == "False"
        if re.match(r"(AutoModel\w*|T5\w+)\.from_pretrained", name):
            assert options.get("use_safetensors") == "True" or "gguf_file" in options


def test_a_job_that_another_process_wrote_is_not_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dealrec.engine import launching

    for name, value in {"WORLD_SIZE": "1", "RANK": "0", launching.PROCESS_COUNT: "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launching, "end_unless", lambda _wanted: None)
    monkeypatch.setattr("sys.argv", ["launching", str(tmp_path), "0", launching._digest(b"the job")])
    (tmp_path / launching.JOB).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(RuntimeError, match="is not what the process that started this one wrote"):
        launching.main()


@pytest.fixture
def model(tmp_path: Path, tiny_llm: Path) -> Path:
    return Path(shutil.copytree(tiny_llm, tmp_path / "llm"))


@pytest.mark.parametrize(
    ("file", "entry", "said"),
    [
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "model.Model"}}, "asks for code of its own"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["tokens.Tokens", None]}}, "asks for code of its own"),
        ("config.json", {"attn_implementation": "someone/kernel"}, "asks for a kernel of the hub"),
    ],
)
def test_a_model_that_asks_for_its_own_code_is_refused(
    model: Path, write_config: Callable[..., Path], cli: Cli, file: str, entry: dict[str, Any], said: str
) -> None:
    (model / "model.py").write_text("raise SystemExit('code of the model was run')")
    (model / "tokens.py").write_text("raise SystemExit('code of the model was run')")
    content = json.loads((model / file).read_text()) | entry
    (model / file).write_text(json.dumps(content))
    for setting in ("llm.model", "tiger.text_encoder"):
        with pytest.raises(ModelError, match=said):
            check_directory(model, setting=setting)
    config = write_config(select={"method": "loss-drop"}, llm={"model": str(model)})
    status, _, err = cli("validate", config)
    assert status == 2
    assert re.search(rf"error: .*{file} {said}", err)
    assert len(err.strip().splitlines()) == 1


def test_listings_of_a_model_name_files_of_its_folder_alone(model: Path) -> None:
    (model / "modules.json").write_text('[{"type": "sentence_transformers.models.Transformer", "path": "../up"}]')
    with pytest.raises(ModelError, match=r"modules\.json names '\.\./up', which is not in the folder"):
        encoder_modules(model)
    (model / "model.safetensors").rename(model.parent / "model.safetensors")
    for name in ("../model.safetensors", str(model.parent / "model.safetensors")):
        (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(ModelError, match="which is not in the folder"):
            check_directory(model)


@pytest.mark.parametrize(
    "name",
    [
        *("../up", "/tmp/x", "a/b", "a\\b", "..", ".hidden", "", "a\nb", "\u202eab", "x" * 101, "a+1", "a\x00b"),
        *("base", "selected", "selected-1", "random-0", "candidates", "strata"),
    ],
)
def test_arms_are_named_as_folders_of_their_own(name: str) -> None:
    with pytest.raises(ValueError, match="no arm can be called"):
        Config.model_validate({"select": {"arms": {name: {"method": "random"}}}})


def test_methods_and_options_of_a_comparison_make_names_of_folders() -> None:
    methods = [
        {"method": "/somewhere/../my method.py"},
        {"method": "random", "options": {"x": "../../up"}},
        {"method": "random", "options": {"x": "....up"}},
    ]
    config = Config.model_validate({"compare": {"methods": methods}})
    arms = replicate_config(config, 0).select.arms
    assert {"my method", "random-x-....up"} < set(arms)
    assert len([name for name in arms if name.startswith(("arm random", "random-x-"))]) == 2
    again = replicate_config(config, 0).model_dump(mode="json")
    assert Config.model_validate(again).select.arms == arms  # as a run directory records them


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "more than 100,000 values"),
        ("a: &a [*a]", "more than 100,000 values"),
        ("[" * 5000, "nested too deeply"),
        ("#" * (2**22 + 1), "is the most that is read"),
        ("2020-01-01: x", "a key that is no text"),
        ("seed: 2020-13-45", "not valid YAML"),
        ("seed: !!python/object/apply:os.system [exit]", "not valid YAML"),
        ("data: {interactions: 'a\\0b'}".replace("'", '"'), "is no path"),
        (f"data: {{interactions: {'x' * 300}}}", "is no path"),
    ],
    ids=lambda value: value[:20],
)
def test_a_config_that_somebody_made_up_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load(tmp_path / "config.yaml")


def slow_end(text: bytes, *, escaped: bool) -> int:
    """The last line end before which quote marks add up."""
    ends = [place + 1 for place, byte in enumerate(text) if byte == ord("\n")]
    marks = [text[:end].count(b'"') - escaped * text[:end].count(b'\\"') for end in ends]
    return max((end for end, count in zip(ends, marks, strict=True) if count % 2 == 0), default=0)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([b'"', b'\\"', b"\n", b"a", b",", b"\\"])).map(b"".join), st.booleans())
def test_blocks_end_where_a_slow_search_says(text: bytes, escaped: bool) -> None:
    assert blocks._end(text, quoted=True, escaped=escaped) == slow_end(text, escaped=escaped)


@pytest.mark.slow
def test_rows_and_files_have_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (blocks, records):
        monkeypatch.setattr(module, "LONGEST_LINE", 2**21)
    monkeypatch.setattr(records, "LARGEST_DOCUMENT", 2**20)
    (tmp_path / "log.csv").write_bytes(b"a,b\n1," + b"x" * 2**22)
    (tmp_path / "log.jsonl").write_bytes(b'{"a": "' + b"x" * 2**22)
    (tmp_path / "rows.csv").write_bytes(b'a,b\n1,"' + b"x\n" * 2**21)
    (tmp_path / "rows.json").write_bytes(b"[" + b" " * 2**21 + b"]")
    for name in ("log.csv", "log.jsonl"):
        with pytest.raises(DataError, match="a row of it is longer than 2 MiB"):
            read_table(tmp_path / name)
    with pytest.raises(DataError, match="a row of it is longer than 2 MiB"):
        list(records.raw_records(tmp_path / "rows.csv"))
    with pytest.raises(DataError, match="Write one object a line"):
        list(records.raw_records(tmp_path / "rows.json"))


def test_a_packed_file_that_holds_far_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 1000))
    blocks.require_sane(path, 2**30)
    with pytest.raises(DataError, match="unpacks to more than 200 times its size"):
        blocks.require_sane(path, 2**30 + 1)


HOSTILE = "[red]x[/red]\x1b[2J\x07\u202eevil\u2066 :boom:\r"


def test_terminals_show_hostile_texts_and_do_not_act_on_them(
    tmp_path: Path, cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    pl.DataFrame({f"{HOSTILE}\nforged: line": [1, 2], "item": ["a", "b"]}).write_csv(tmp_path / "log.csv")
    pl.DataFrame({"item_id": ["a"], "title": ["A"]}).write_csv(tmp_path / "items.csv")
    (tmp_path / "config.yaml").write_text("data: {interactions: log.csv, items: items.csv}")
    status, _, err = cli("validate", tmp_path / "config.yaml")
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert "\\x1b[2J\\x07\\u202eevil\\u2066" in err
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    PlainConsole(width=200).print(table, HOSTILE)
    shown = capsys.readouterr().out
    assert shown.count("[red]x[/red]\\x1b[2J\\x07\\u202eevil\\u2066 :boom:") == 4
    assert not set("\x1b\x07\u202e\u2066") & set(err + shown)


def test_an_id_that_stands_in_for_a_title_is_cleaned_as_titles_are() -> None:
    from dealrec.data.titles import item_table

    ids = pl.Series(["a\u202eb", "c"])
    table = item_table(ids, pl.Series([None, "C"], dtype=pl.String), warn=lambda _: None)
    assert table["title"].to_list() == ["a b", "C"]
