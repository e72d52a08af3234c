"""The examples are run as they stand, or with small sizes in the place of their own."""

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from dealrec.config import Config
from dealrec.config.files import load
from dealrec.config.presets import REFERENCE
from dealrec.engine.runner import run
from dealrec.engine.stage import Silent
from dealrec.errors import ConfigError
from dealrec.stages.pipeline import stages_until
from dealrec.stages.validation import check
from tests.conftest import Cli, made_interactions, made_items

EXAMPLES = Path(__file__).parent.parent / "examples"
CONFIGS = {path.stem: path for path in sorted((EXAMPLES / "configs").iterdir())}
README = (EXAMPLES / "README.md").read_text()

SMALL = (
    "surrogate.dim=8",
    "surrogate.layers=1",
    "surrogate.max_epochs=2",
    "surrogate.batch_size=16",
    "pool.size=12",
    "select.budget=6",
    "finetune.epochs=2",
    "finetune.batch_size=4",
    "finetune.micro_batch_size=2",
)
# What is particular to a recipe, and the stage up to which it is run; the others are parsed and looked at.
RECIPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "bigrec-lora": ("export", ()),
    "bigrec-full": ("finetune", ("select.random_arms=0",)),
    "tiger": (
        "export",
        (
            "tiger.codes={levels: 2, codes: 4, epochs: 5}",
            "tiger.t5={d_model: 8, heads: 2, d_kv: 4, d_ff: 8, layers: 1}",
            "tiger.max_epochs=2",
        ),
    ),
    "warm-start": ("effort", ("pool.size=6", "select.budget=3")),
    "several-seeds": ("select", ()),
    "tracked": ("finetune", ("finetune.validation_samples=5", "select.random_arms=0")),
    "gru4rec": ("influence", ()),
    "custom-surrogate": ("influence", ()),
    "reference": ("select", ("influence.solver.depth=20", "pool.size=12")),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Data to go with any recipe."""
    made_interactions().write_parquet(tmp_path / "interactions.parquet")
    made_items().write_parquet(tmp_path / "items.parquet")
    return tmp_path


def on_small_data(name: str, folder: Path, llm: Path, text_encoder: Path) -> Config:
    _, own = RECIPES.get(name, ("", ()))
    given = {"interactions": folder / "interactions.parquet", "items": folder / "items.parquet"}
    paths = [f"data.{key}={path}" for key, path in given.items()]
    paths += [f"tiger.text_encoder={text_encoder}"] if name == "tiger" else [f"llm.model={llm}"]
    return load(CONFIGS[name], [*paths, *SMALL, *own])


def test_there_is_a_row_for_each_example() -> None:
    files = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*") if path.is_file()}
    listed = set(re.findall(r"^\| \[[^]]*\]\(([^)]*)\)", README, flags=re.MULTILINE))
    assert listed == {name for name in files - {"README.md"} if "__pycache__" not in name}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_recipe_is_short_says_how_it_is_run_and_is_valid(name: str) -> None:
    text = CONFIGS[name].read_text()
    assert len(text.splitlines()) < 60
    assert f"dealrec run examples/configs/{name}.yaml --run-dir runs/{name}\n" in text
    config = load(CONFIGS[name])
    assert config.data.interactions == EXAMPLES / "configs" / "interactions.parquet"
    assert config != Config(data=config.data)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.slow
def test_a_recipe_runs(name: str, folder: Path, tiny_llm: Path, text_encoder: Path) -> None:
    until, _ = RECIPES[name]
    config = on_small_data(name, folder, tiny_llm, text_encoder)
    outcomes = run(config, folder / "run", stages_until(config, until), progress=Silent())
    assert outcomes[-1].stage == until
    left = {path.name for path in (folder / "run" / until).iterdir()}
    expected = {
        "influence": {"scores.parquet"},
        "effort": {"scores.parquet"},
        "select": {f"{kind}.parquet" for kind in selections(config)},
        "export": {"train.jsonl"},
        "finetune": set(selections(config)),
    }
    assert expected[until] <= left


def selections(config: Config) -> list[str]:
    more = [f"selected-{number}" for number in range(1, config.select.selections)]
    return ["selected", *more, *(f"random-{number}" for number in range(config.select.random_arms))]


def test_every_recipe_that_needs_no_gpu_is_run() -> None:
    assert set(CONFIGS) - set(RECIPES) == {"quantised-gpu"}


def test_the_recipe_for_a_gpu_says_so_where_there_is_none(folder: Path, tiny_llm: Path, text_encoder: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match="needs a CUDA GPU"):
        check(on_small_data("quantised-gpu", folder, tiny_llm, text_encoder), warn=lambda _: None)


def test_the_reference_recipe_is_the_preset() -> None:
    given = yaml.safe_load(CONFIGS["reference"].read_text())
    assert {name: given[name] for name in ("surrogate", "influence", "pool")} == {
        name: REFERENCE[name] for name in ("surrogate", "influence", "pool")
    }
    assert REFERENCE["select"].items() <= given["select"].items()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.slow
def test_the_script_runs_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(EXAMPLES / "prune.py"), "--small"])
    monkeypatch.syspath_prepend(EXAMPLES)  # as Python does for a script
    runpy.run_path(sys.argv[0], run_name="__main__")
    assert "8 samples, the best first" in capsys.readouterr().out
    pruned = tmp_path / "runs" / "pruned"
    assert len((pruned / "train.jsonl").read_text().splitlines()) == 8
    assert (pruned / "trl" / "sft.yaml").is_file()
    assert (pruned / "report.html").is_file()


@pytest.mark.slow
def test_a_recipe_is_tried_on_made_up_data_as_the_readme_says(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    made, ran = block.replace("/tmp/small", str(tmp_path)).replace("\\\n", " ").splitlines()
    monkeypatch.chdir(EXAMPLES.parent)
    monkeypatch.setattr(sys, "argv", made.split()[1:])
    runpy.run_path(sys.argv[0], run_name="__main__")
    status, out, err = cli(*ran.split()[1:])
    assert status == 0, err
    assert "Selected: 8 of" in out
    assert len((tmp_path / "run" / "export" / "train.jsonl").read_text().splitlines()) == 8


def notebook() -> Any:
    import nbformat

    return nbformat.read(EXAMPLES / "dealrec.ipynb", as_version=4)


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = [cell for cell in notebook().cells if cell.cell_type == "code"]
    assert [cell for cell in cells if cell.outputs or cell.execution_count] == []


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    book = notebook()
    NotebookClient(book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output for output in shown if output.output_type == "error"] == []
    assert any("text/html" in output.get("data", {}) for output in shown)
    selected = pl.read_parquet(tmp_path / "runs" / "notebook" / "select" / "selected.parquet")
    assert len(selected) == 8
