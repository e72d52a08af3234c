"""The command line as a user meets it: what it refuses, in one line with status 2, and what it shows."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import polars as pl
import pytest

from dealrec.config import Columns, Config
from dealrec.stages import STAGE_NAMES
from dealrec.stages.pipeline import stages as declared
from tests.conftest import Cli

STAGES = declared(Config.model_validate({"select": {"method": "dealrec"}, "pool": {"method": "influence-strata"}}))

Write = Callable[..., Path]


def refused(result: tuple[int, str, str], *words: str) -> None:
    """Status 2, nothing on stdout, and one line of error that holds the words."""
    status, out, err = result
    assert (status, out) == (2, ""), err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in err
    for word in words:
        assert word in line


def test_the_stages_are_known_without_what_computes_them() -> None:
    """`status` and `validate` begin by importing them."""
    code = (
        "import sys, dealrec.stages.pipeline, dealrec.stages.fidelity\n"
        "heavy = {'torch', 'transformers', 'peft', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_stage_names_of_the_help_are_those_of_the_pipeline() -> None:
    scored_by_another = Config.model_validate({"signals": {"llm": {}}})
    assert tuple(stage.name for stage in declared(scored_by_another, beside=STAGE_NAMES)) == STAGE_NAMES


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['dealrec', '--help']\n"
        "from dealrec.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'polars', 'transformers', 'numpy', 'pydantic', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "dealrec" in done.stdout


def test_the_default_config_is_read_back_as_the_default(cli: Cli, tmp_path: Path) -> None:
    from dealrec.config.files import load, parse

    status, out, _ = cli("config")
    assert status == 0
    (tmp_path / "config.yaml").write_text(out)
    assert load(tmp_path / "config.yaml") == parse({}, base=tmp_path)


def test_the_schema_is_json(cli: Cli) -> None:
    assert json.loads(cli("config", "--schema")[1])["additionalProperties"] is False


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("select.bugdet=3", ["'select.bugdet'", "Did you mean select.budget?"]),
        ("slect.budget=3", ["'slect'", "Did you mean select?"]),
        ("influence.solver.dampng=1", ["'influence.solver.dampng'", "Did you mean influence.solver.damping?"]),
        ("budget=3", ["'budget'", "Did you mean select.budget?"]),
        ("data.columns.usr=u", ["Did you mean data.columns.user?"]),
        ("zzzz=3", ["'zzzz'", "Known here: seed, replicate, warm_replicate, data"]),
        ("select.budget=0", ["select.budget", "at least 1"]),
        ("select.budget=-3", ["select.budget", "at least 1"]),
        ("select.budget=1.5", ["select.budget", "at most 1.0"]),
        ("select.budget=true", ["select.budget", "expected a count"]),
        ("select.budget=41", ["select.budget is 41", "40 training samples"]),
        ("select.budget=13", ["above the 12 candidates", "pool.size"]),
        ("select={budget: 12, selections: 2}", ["selections would be the same", "12 candidates"]),
        ("select.selections=0", ["select.selections", "1"]),
        ("finetune.seeds=0", ["finetune.seeds", "1"]),
        ("seed=abc", ["seed", "integer"]),
        ("seed=5000000000", ["seed", "4294967295"]),
        ("finetune.learning_rate=.inf", ["finetune.learning_rate", "finite"]),
        ("data.split=random", ["data.split", "leave-last-out"]),
        ("nonsense", ["key=value"]),
        ("influence.parameters=[lyers.*]", ["'lyers.*' matches no parameter", "layers.0"]),
        ("llm.lora.target_modules=[queries]", ["queries", "q_proj"]),
        ("llm.prompt.template=none", ["llm.prompt.template", "{history}"]),
        ("finetune.micro_batch_size=3", ["micro_batch_size", "divide"]),
        ("surrogate.heads=3", ["surrogate", "heads", "divide"]),
        ("data.columns.user=usr", ["data.columns.user", "'usr'", "user_id"]),
        ("data.interactions=nowhere.parquet", ["nowhere.parquet"]),
    ],
)
def test_settings_that_cannot_be_are_refused(cli: Cli, write_config: Write, override: str, words: list[str]) -> None:
    path = write_config()
    refused(cli("run", path, "--run-dir", path.parent / "run", "--set", override), *words)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["influence.parameters=[lyers.*]"], ["'lyers.*' matches no parameter"]),
        (["surrogate.kind=mf", "influence.solver.kind=ekfac"], ["item_factors.weight", "CG"]),
        (["surrogate.kind=custom", "surrogate.module=nowhere.py"], ["nowhere.py", "no Python file"]),
    ],
)
def test_validate_finds_what_would_stop_influence(
    cli: Cli, write_config: Write, overrides: list[str], words: list[str]
) -> None:
    path = write_config()
    chosen = [part for override in overrides for part in ("--set", override)]
    refused(cli("validate", path, *chosen), *words)


def test_validate_tells_what_influence_will_need(cli: Cli, write_config: Write) -> None:
    code, out, _ = cli("validate", write_config(), "--set", "surrogate.dim=32")
    assert code == 0
    assert "influence parameters: " in out
    assert "influence solver mib: " in out
    assert "fine tunings: 2" in out


def test_a_change_of_kind_keeps_the_other_settings_of_the_surrogate(write_config: Write) -> None:
    from dealrec.config.files import load

    changed = load(write_config(), ["surrogate.kind=gru4rec"]).surrogate
    assert (changed.kind, changed.dim, changed.max_epochs) == ("gru4rec", 8, 4)
    assert load(write_config(), ["surrogate.module=x.py", "surrogate.kind=custom"]).surrogate.kind == "custom"


def test_a_preset_is_a_config(cli: Cli) -> None:
    code, out, _ = cli("config", "--preset", "reference")
    assert code == 0
    assert 'kind: "lissa"' in out
    assert "hard_prune: 0.1" in out
    refused(cli("config", "--preset", "nope"), "no preset 'nope'", "reference")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:200]), ["interactions.parquet", "PAR1"]),
        (lambda p: p.write_bytes(b""), ["interactions.parquet", "empty"]),
        (lambda p: pl.read_parquet(p).clear().write_parquet(p), ["interactions.parquet", "no rows"]),
        (lambda p: pl.read_parquet(p).drop("item_id").write_parquet(p), ["data.columns.item", "'item_id'"]),
        (
            lambda p: pl.read_parquet(p).with_columns(pl.lit("yesterday").alias("timestamp")).write_parquet(p),
            ["timestamp", "yesterday"],
        ),
    ],
)
def test_files_that_cannot_be_read_are_refused_and_earlier_results_stay(
    cli: Cli, write_config: Write, damage: Callable[[Path], object], words: list[str]
) -> None:
    path = write_config()
    run_dir = path.parent / "run"
    assert cli("run", path, "--run-dir", run_dir, "--until", "data")[0] == 0
    before = {file: file.read_bytes() for file in run_dir.rglob("*.parquet")}
    damage(path.parent / "interactions.parquet")
    refused(cli("run", path, "--run-dir", run_dir), *words)
    assert {file: file.read_bytes() for file in run_dir.rglob("*.parquet")} == before
    refused(cli("validate", path), *words)


def test_a_model_directory_without_weights_is_refused_before_anything_is_computed(
    cli: Cli, write_config: Write, tmp_path: Path, tiny_llm: Path
) -> None:
    folder = tmp_path / "llm"
    folder.mkdir()
    (folder / "config.json").write_bytes((tiny_llm / "config.json").read_bytes())
    path = write_config(llm={"model": "./llm"})
    refused(cli("validate", path), "no weights", "safetensors")
    refused(cli("run", path, "--run-dir", tmp_path / "run"), "no weights", "safetensors")
    assert not (tmp_path / "run" / "surrogate").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ab[c]", "ab?", "ab*", "**"])
def test_run_directories_and_the_place_of_temporary_files_mean_themselves(
    cli: Cli, write_config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Beside one that the name would stand for, if it were a pattern."""
    path = write_config()
    assert cli("run", path, "--run-dir", tmp_path / "abc", "--until", "surrogate")[0] == 0
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    fewer = pl.read_parquet(tmp_path / "interactions.parquet").filter(pl.col("user_id") < "u020")
    fewer.write_parquet(tmp_path / "fewer.parquet")
    changed = ("--set", f"data.interactions={tmp_path / 'fewer.parquet'}", "--set", "select.budget=3")
    status, _, err = cli("run", path, "--run-dir", tmp_path / name, "--until", "surrogate_loss", *changed)
    assert status == 0, err
    tables = [tmp_path / name / file for file in ("data/samples-train.parquet", "surrogate_loss/scores.parquet")]
    samples, scores = (pl.read_parquet(table, glob=False) for table in tables)
    assert len(samples) == len(scores) == 20
    assert cli("validate", path)[0] == 0
    assert cli("run", path, "--run-dir", tmp_path / name, "--until", "surrogate_loss", "--dry-run", *changed)[0] == 0


def test_a_run_directory_in_use_is_refused(cli: Cli, write_config: Write) -> None:
    from filelock import FileLock

    path = write_config()
    run_dir = path.parent / "run"
    run_dir.mkdir()
    with FileLock(run_dir / ".dealrec.lock"):
        refused(cli("run", path, "--run-dir", run_dir), "in use by another process")


@pytest.mark.slow
def test_the_whole_run_shows_its_tables_and_a_second_one_says_that_it_does_nothing(
    cli: Cli, write_config: Write
) -> None:
    path = write_config()
    status, out, err = cli("run", path, "--run-dir", path.parent / "run")
    assert status == 0
    for word in (
        "Selected: 6 of 40",
        "stratum",
        "peak memory",
        "recall@5",
        "base",
        "Random",
        "p (users)",
        "They hold for one selection, one random arm and one training of each arm",
        "report.html",
    ):
        assert word in out
    assert "the future leaks" in err.replace("\n", " ")
    status, out, err = cli("run", path, "--run-dir", path.parent / "run")
    assert status == 0
    assert "Nothing to do" in out
    assert "surrogate ..." not in err
    status, out, _ = cli("run", path, "--run-dir", path.parent / "run", "--json")
    found = json.loads(out)
    assert [stage["ran"] for stage in found["stages"]] == [False] * len(STAGES)
    assert found["results"]["comparison"]["measures"]["loss"]["verdict"]
    assert found["results"]["arms"]["random"]["loss"]["n"] == 10
    status, out, _ = cli("status", path.parent / "run", "--json")
    assert [row["state"] for row in json.loads(out)] == ["complete"] * len(STAGES)
    status, out, _ = cli("status", path.parent / "run")
    assert "complete" in out


def test_a_kind_that_is_set_leaves_the_keys_of_the_other_behind(cli: Cli, tmp_path: Path) -> None:
    from dealrec.config.files import load

    (tmp_path / "config.yaml").write_text(cli("config")[1])
    config = load(tmp_path / "config.yaml", ["influence.solver.kind=lissa", "influence.solver.depth=7"])
    assert (config.influence.solver.kind, config.evaluate.ks) == ("lissa", [10, 20])


def test_status_of_something_else_is_refused(cli: Cli, tmp_path: Path) -> None:
    refused(cli("status", tmp_path), "not a run directory")


def test_validate_counts_and_warns(cli: Cli, write_config: Write) -> None:
    status, out, err = cli("validate", write_config())
    assert status == 0
    assert "train samples: 40" in out
    assert "valid" in out
    assert "2 of 30 items share their title" in err.replace("\n", " ")


def test_a_model_that_the_hub_does_not_give_is_refused_before_anything_is_computed(
    cli: Cli, write_config: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # where nothing listens
    path = write_config(llm={"model": "nobody/nothing"})
    refused(cli("validate", path), "llm.model 'nobody/nothing' is no folder here", "Name a folder")
    assert cli("run", path, "--run-dir", tmp_path / "run")[0] == 2
    assert not (tmp_path / "run" / "surrogate").exists()


def test_a_stack_that_there_is_not_is_refused_at_once(cli: Cli, tmp_path: Path) -> None:
    refused(cli("export", tmp_path, "--to", "llama-factory"), "'llama-factory'", "Did you mean llamafactory?")


def test_config_as_json_holds_every_setting(cli: Cli) -> None:
    columns = json.loads(cli("config", "--json")[1])["data"]["columns"]
    assert list(columns) == list(Columns.model_fields)


def test_the_version_is_that_of_the_package(cli: Cli) -> None:
    assert cli("--version")[1].strip() == version("dealrec")
