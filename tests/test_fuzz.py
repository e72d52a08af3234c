"""Whatever bytes a file holds, what reads it gives a table or the project's own error, on one line and with a remedy.

A few seconds of it run in the suite, the same each time. `DEALREC_FUZZ=100` runs a hundred times as many examples, each
time others: `DEALREC_FUZZ=100 python -m pytest tests/test_fuzz.py`.
"""

import gzip
import io
import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dealrec.config import Config
from dealrec.config.files import load
from dealrec.drafting.draft import draft
from dealrec.engine.runner import recorded_config
from dealrec.engine.stage import Silent
from dealrec.errors import DealrecError
from dealrec.recommenders.files import check_directory, check_encoder
from dealrec.stages import data
from dealrec.stages.context import Context
from dealrec.stages.pipeline import states_with_check

pytestmark = pytest.mark.slow  # hundreds of inputs each

MANY = int(os.environ.get("DEALREC_FUZZ", "0"))
ENOUGH = settings(
    max_examples=max(1, MANY) * 15,
    derandomize=not MANY,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=bool(MANY),
)
# What programs and people stumble over: in texts, in JSON, in YAML, in names of columns.
TOKENS = [
    *rb"""" "" \" ' , | :: { } [ ] {} [] null NaN -Infinity true 0 -1 007 1e999 1e-999 0x1F 1_0 -9223372036854775808
    18446744073709551615 0.1 2024-02-30 9999-12-31T23:59:60Z 0001-01-01 2020-13-45 * ^.*$ user_id item_id title
    ../../x =1+1 <script> &a *a <<: ? - : !!int !!python/name:os.system > # % @ \ud800 ###""".split(),
    *(b"", b" ", b"\n", b"\r\n", b"\n\n", b"\t", b"\x00", b"\x1b[2J", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3"),
    *("\u202e".encode(), b"\xed\xa0\x80", b"[" * 3000, b'{"a":' * 3000, b"9" * 20, b"9" * 5000, b"### Response:\n"),
]
Edit = tuple[float, float, bytes]


def edited(content: bytes, edits: list[Edit]) -> bytes:
    """The content with stretches replaced; each edit: where, how much of it (as shares), and by what."""
    for place, length, token in edits:
        start = round(place * len(content))
        end = start + round(length**4 * (len(content) - start))  # short ones more often
        content = content[:start] + token + content[end:]
    return content


def share() -> st.SearchStrategy[float]:
    return st.floats(0, 1)


EDITS = st.lists(st.tuples(share(), share(), st.sampled_from(TOKENS) | st.binary(max_size=8)), max_size=4)
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
SCALARS |= st.sampled_from([token.decode(errors="replace") for token in TOKENS if len(token) < 50])
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))


def told(action: Callable[[], Any]) -> None:
    """Nothing is raised, or the project's own error, on one line and with a remedy."""
    said = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            action()
    except DealrecError as error:
        said = error
    assert said is None or (said.cause and said.remedy and "\n" not in str(said))


def parquet(table: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    table.write_parquet(file)
    return file.getvalue()


LOG = pl.DataFrame(
    {
        "user_id": [f"u{row // 6}" for row in range(24)],
        "item_id": [row * 5 % 7 for row in range(24)],
        "timestamp": list(range(24)),
        "rating": [float(row % 5) for row in range(24)],
    }
)
ITEMS = pl.DataFrame({"item_id": range(7), "title": ["Ant", "Bee, the", 'C"d', "Eel", "Fox", "Gnu", "Hen"]})
ROWS = pl.DataFrame(
    {
        "prompt": [f"Next of {row}?" for row in range(12)],
        "completion": [f"Film {row % 3}" for row in range(12)],
        "history": [[row, row + 1] for row in range(12)],
        "target": [row % 3 for row in range(12)],
    }
)
RECBOLE = "user_id:token\titem_id:token\ttimestamp:float\n" + "".join(
    f"u{row // 6}\t{row % 7}\t{row}\n" for row in range(24)
)


def encoded(table: pl.DataFrame, ending: str) -> bytes:
    """A table as a file whose name ends so."""
    kind, _, packed = ending.partition(".")
    flat = table.with_columns(pl.col(pl.List(pl.Int64)).list.eval(pl.element().cast(pl.String)).list.join("|"))
    content = {
        "csv": lambda: flat.write_csv().encode(),
        "tsv": lambda: flat.write_csv(separator="\t").encode(),
        "jsonl": lambda: table.write_ndjson().encode(),
        "json": lambda: json.dumps(table.to_dicts(), indent=1).encode(),
        "parquet": lambda: parquet(table),
    }[kind]()
    return gzip.compress(content, mtime=0) if packed else content


def data_stage(folder: Path, section: Mapping[str, Any]) -> None:
    """Everything that becomes of the user's files: reading, splits, samples."""
    out = folder / "data"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    config = Config.model_validate({"data": section, "select": {"method": "loss-drop"}})
    data.run(Context("data", config, Silent(), folder, out, ()))


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "parquet", "csv.gz", "jsonl.gz"])
def test_interactions_and_items(tmp_path: Path, ending: str) -> None:
    files = {"interactions": encoded(LOG, ending), "items": encoded(ITEMS, ending)}
    paths = {name: tmp_path / f"{name}.{ending}" for name in files}

    @ENOUGH
    @given(st.sampled_from(sorted(files)), EDITS, st.booleans())
    def check(which: str, edits: list[Edit], rated: bool) -> None:
        for name, content in files.items():
            paths[name].write_bytes(edited(content, edits if name == which else []))
        columns, more = ({"rating": "rating"}, {"min_rating": 1}) if rated else ({}, {})
        told(lambda: data_stage(tmp_path, {**paths, **more, "columns": columns}))

    check()


@pytest.mark.parametrize("which", ["interactions", "items"])
def test_tables_of_any_types(tmp_path: Path, which: str) -> None:
    tables = {"interactions": LOG, "items": ITEMS}
    paths = {name: tmp_path / f"{name}.parquet" for name in tables}

    @ENOUGH
    @given(st.data())
    def check(draw: st.DataObject) -> None:
        table = tables[which]
        for name in draw.draw(st.lists(st.sampled_from(table.columns), max_size=2, unique=True)):
            kind = draw.draw(
                st.sampled_from([pl.Int8, pl.UInt64, pl.Float32, pl.String, pl.Binary, pl.Boolean, pl.Date, pl.Null])
                | st.sampled_from(
                    [pl.Datetime("ns"), pl.Duration("us"), pl.Time(), pl.Decimal(20, 3), pl.Categorical()]
                )
                | st.sampled_from([pl.List(pl.Int64), pl.Struct({"a": pl.Int64}), pl.Array(pl.Int64, 2)])
            )
            ends = draw.draw(st.lists(SCALARS, min_size=table.height, max_size=table.height))
            column = pl.Series(name, [None] * table.height, dtype=kind)
            for cells in (ends, [[0, 1]] * table.height, [{"a": 1}] * table.height, list(range(table.height))):
                try:
                    column = pl.Series(name, cells, dtype=kind, strict=False)
                    break
                except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
                    continue
            table = table.with_columns(column)
        for name, content in (tables | {which: table}).items():
            content.write_parquet(paths[name])
        split = draw.draw(st.sampled_from(["time", "leave-last-out"]))
        told(lambda: data_stage(tmp_path, {**paths, "split": split}))
        told(lambda: draft(list(paths.values()), folder=tmp_path, llm="x/y"))

    check()


def test_recbole_and_release_files(tmp_path: Path) -> None:
    release = "".join(f"{user} {user} {user + 1} {user + 2}\n" for user in range(5)).encode()
    (tmp_path / "log.item").write_text(
        "item_id:token\ttitle:token\n" + "".join(f"{item}\tT{item}\n" for item in range(7))
    )

    @ENOUGH
    @given(EDITS)
    def check(edits: list[Edit]) -> None:
        (tmp_path / "log.inter").write_bytes(edited(RECBOLE.encode(), edits))
        paths = {"interactions": tmp_path / "log.inter", "items": tmp_path / "log.item"}
        told(lambda: data_stage(tmp_path, {**paths, "format": "recbole"}))
        for part in ("train", "valid", "test"):
            content = edited(release, edits) if part == "train" else release
            (tmp_path / f"sequential_{part}.txt").write_bytes(content)
        (tmp_path / "items.csv").write_bytes(encoded(ITEMS, "csv"))
        section = {"interactions": tmp_path, "items": tmp_path / "items.csv", "format": "dealrec", "split": "column"}
        told(lambda: data_stage(tmp_path, section))

    check()


@pytest.mark.parametrize("ending", ["csv", "jsonl", "json", "parquet", "jsonl.gz"])
def test_rows(tmp_path: Path, ending: str) -> None:
    path, content = tmp_path / f"rows.{ending}", encoded(ROWS, ending)

    @ENOUGH
    @given(EDITS, st.booleans())
    def check(edits: list[Edit], mapped: bool) -> None:
        path.write_bytes(edited(content, edits))
        columns = {"history": "history", "target": "target"} if mapped else {}
        told(lambda: data_stage(tmp_path, {"format": "rows", "rows": path, "columns": columns}))

    check()


def test_rows_of_any_values(tmp_path: Path) -> None:
    fields = ["prompt", "completion", "messages", "input_ids", "labels", "history", "target", "instruction", "text"]
    path = tmp_path / "rows.jsonl"

    @ENOUGH
    @given(
        st.lists(st.dictionaries(st.sampled_from(fields), VALUES, max_size=5), min_size=1, max_size=3), st.booleans()
    )
    def check(rows: list[dict[str, Any]], mapped: bool) -> None:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        columns = {"history": "history", "target": "target"} if mapped else {}
        told(lambda: data_stage(tmp_path, {"format": "rows", "rows": path, "columns": columns}))
        told(lambda: draft([path], folder=tmp_path, llm="x/y"))

    check()


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet", "csv.gz"])
def test_files_that_init_looks_at(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"log.{ending}").write_bytes(encoded(LOG, ending))

    @ENOUGH
    @given(EDITS)
    def check(edits: list[Edit]) -> None:
        (tmp_path / f"items.{ending}").write_bytes(edited(encoded(ITEMS, ending), edits))
        told(lambda: draft([tmp_path], folder=tmp_path, llm="x/y"))

    check()


def setting(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Sections with known keys and any values."""
    sections = {name: field.annotation for name, field in Config.model_fields.items()}
    parts = [
        st.dictionaries(st.sampled_from([*getattr(kind, "model_fields", {"x": None})]), values, max_size=3)
        for kind in sections.values()
    ]
    return st.fixed_dictionaries({}, optional=dict(zip(sections, (part | values for part in parts), strict=True)))


def test_configs(tmp_path: Path) -> None:
    usual = yaml.safe_dump(
        {
            "seed": 3,
            "data": {"interactions": "log.csv", "columns": {"user": "u"}, "split": "time", "min_rating": None},
            "influence": {"solver": {"kind": "cg", "damping": 0.1}, "parameters": ["*"]},
            "select": {"budget": 0.1, "arms": {"other": {"method": "random", "options": {"a": 1}}}},
            "compare": {"methods": ["dealrec", {"method": "effort"}], "budgets": [8]},
        }
    ).encode()
    path = tmp_path / "config.yaml"

    @ENOUGH
    @given(EDITS, setting(VALUES), st.lists(st.text(max_size=12) | st.sampled_from(["select.budget=", "seed=1"])))
    def check(edits: list[Edit], raw: dict[str, Any], overrides: list[str]) -> None:
        for content in (edited(usual, edits), json.dumps(raw).encode(), yaml.safe_dump(raw).encode()):
            path.write_bytes(content)
            told(lambda: load(path))
        path.write_bytes(usual)
        told(lambda: load(path, overrides))

    check()


def test_model_files(tmp_path: Path, tiny_llm: Path) -> None:
    folder = tmp_path / "llm"
    shutil.copytree(tiny_llm, folder)
    names = ["config.json", "tokenizer.json", "model.safetensors", "modules.json", "model.safetensors.index.json"]
    index = b'{"weight_map": {"a": "model.safetensors"}}'
    usual = {name: (tiny_llm / name).read_bytes() for name in names if (tiny_llm / name).exists()}
    modules = b'[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]'
    usual |= {"modules.json": modules, "model.safetensors.index.json": index}

    @ENOUGH
    @given(st.sampled_from(names), EDITS, st.booleans())
    def check(name: str, edits: list[Edit], whole: bool) -> None:
        for each, content in usual.items():
            (folder / each).write_bytes(edited(content, edits) if each == name else content)
        if name.endswith("index.json"):
            (folder / "model.safetensors").unlink()
        told(lambda: check_directory(folder) if whole else check_encoder(folder, setting="text.encoder"))

    check()


def test_run_directories(tmp_path: Path) -> None:
    from dealrec.engine.runner import run
    from dealrec.stages.pipeline import stages_until

    for name, table in (("interactions", LOG), ("items", ITEMS)):
        table.write_parquet(tmp_path / f"{name}.parquet")
    given_config = {"data": {name: tmp_path / f"{name}.parquet" for name in ("interactions", "items")}}
    given_config |= {"select": {"method": "influence"}, "influence": {"risk": "train"}}  # type: ignore[dict-item]
    run_dir = tmp_path / "run"
    run(Config.model_validate(given_config), run_dir, stages_until(Config(), "data")[:1], progress=Silent())
    files = [run_dir / "config.json", run_dir / "data" / "manifest.json"]
    usual = {path: path.read_bytes() for path in files}

    @ENOUGH
    @given(st.sampled_from(files), EDITS)
    def check(which: Path, edits: list[Edit]) -> None:
        for path, content in usual.items():
            path.write_bytes(edited(content, edits) if path == which else content)
        told(lambda: list(states_with_check(recorded_config(run_dir, Config), run_dir)))

    check()
