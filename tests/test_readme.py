"""What the README promises, as written: its commands, its config, its Python."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import Cli, made_interactions, made_items, small_settings
from tests.stages.test_rows import made_rows, write_lines

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with their two files, where the test is."""
    made_interactions().write_parquet(tmp_path / "interactions.parquet")
    made_items().write_parquet(tmp_path / "items.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shell(command: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
    )
    assert done.returncode == 0, done.stderr


def test_the_make_commands_are_run_by_the_gate() -> None:
    gate = (ROOT / ".ci" / "run").read_text()
    makes = [command for command in commands() if command.startswith("make")]
    assert makes == ["make demo", "make test"]
    assert [command for command in makes if command not in gate] == []


def rows_commands() -> list[str]:
    """Those for training rows of the reader's own, which come first."""
    own = [command for command in commands() if command.startswith("dealrec")]
    return own[: next(place for place, command in enumerate(own) if "--to rows" in command) + 1]


@pytest.mark.slow
def test_the_commands_for_one_s_own_rows_run_as_written(folder: Path, cli: Cli, tiny_llm: Path) -> None:
    write_lines(folder / "train.jsonl", [row for row in made_rows() if "target" in row])
    few = "--set surrogate.max_epochs=1 --set loss_drop.epochs=1 --set data.valid_share=0.2"
    for command in rows_commands():
        words = shlex.split(command.replace("/models/my-llm", str(tiny_llm)), comments=True)[1:]
        status, _, err = cli(*words, *(shlex.split(few) if words[0] == "run" else ()))
        assert status == 0, (command, err)
    assert (folder / "chosen" / "train.jsonl").exists()
    assert (folder / "chosen" / "rows.txt").read_text()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.slow
def test_the_commands_for_one_s_own_data_run_as_written(folder: Path, cli: Cli, tiny_llm: Path) -> None:
    """The first is a process of its own, as a shell starts it; the others are called here, with the same words."""
    own = [command for command in commands() if command.startswith("dealrec") and command not in rows_commands()]
    names = ["init", "validate", "run", "run", "run", "status", "compare", "run", *["export"] * 4, "fidelity"]
    assert [command.split()[1] for command in own] == names
    # The check on MovieLens takes half an hour; here it is the same command on the small data.
    less = ("subsets=4", "groups=2", "surrogates=1", "workers=1")
    small = f"fidelity config.yaml {' '.join(f'--set fidelity.{setting}' for setting in less)}"
    own[-1] = own[-1].replace("fidelity", small, 1)
    own[6] += " --set compare.methods=[influence] --set compare.replicates=1 --set 'compare.random_sizes=[1, 2]'"
    first, *others = (command.replace("/models/my-llm", str(tiny_llm)) for command in own)
    shell(first)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for name, section in small_settings(tiny_llm).items():  # what the user changes in it
        config[name] = {**config.get(name, {}), **section} if isinstance(section, dict) else section
    config["effort"].pop("pool")
    config["pool"]["size"] = 12
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for command in others:
        status, _, err = cli(*shlex.split(command)[1:])
        assert status == 0, (command, err)
    assert (folder / "runs" / "mine" / "export" / "train.jsonl").exists()
    assert (folder / "runs" / "mine" / "report" / "report.html").exists()
    exports = sorted(path.name for path in (folder / "runs" / "mine" / "exports").iterdir())
    assert exports == ["axolotl", "llamafactory", "parquet", "trl"]
    assert (folder / "runs" / "fidelity" / "fidelity" / "fidelity.parquet").exists()


def test_the_config_of_the_readme_is_one() -> None:
    from dealrec.config.files import parse

    text, tiger, custom = blocks("yaml")
    config = parse(yaml.safe_load(text), base=ROOT)
    assert parse(yaml.safe_load(tiger), base=ROOT).recommender == "tiger"
    module = parse(yaml.safe_load(custom), base=ROOT).surrogate.module
    assert module is not None
    assert module.is_file()
    assert (config.select.budget, config.pool.size, config.data.columns.item) == (1024, 4096, "sku")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.slow
def test_the_python_of_the_readme_runs(folder: Path, tiny_llm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prune, maths = blocks("python")
    prune = prune.replace("/models/my-llm", str(tiny_llm)).replace("budget=1024", "budget=6")
    (folder / "script.py").write_text(prune)
    runpy.run_path("script.py", run_name="__main__")
    assert "sample_id" in capsys.readouterr().out
    assert (folder / "train.jsonl").exists()
    assert (folder / "report.html").exists()
    given = "import torch\nper_sample_loss = lambda p, b: 0.5 * (p['w'] - b) ** 2\nparams = {'w': torch.ones(1)}\n"
    (folder / "maths.py").write_text(f"{given}batches = [torch.tensor([1.0, 3.0])]\n{maths}\nassert len(scores) == 2\n")
    runpy.run_path("maths.py", run_name="__main__")
