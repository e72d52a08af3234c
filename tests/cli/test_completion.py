"""Completion as shells ask for it: with the words so far in the environment, and an answer a line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dealrec.cli.options import FORM_NAMES, STACK_NAMES
from dealrec.config.files import parse, settings
from dealrec.config.presets import PRESETS
from dealrec.exporting.folder import FORMS
from dealrec.stages import STAGE_NAMES

pytestmark = pytest.mark.slow

SCRIPTS = Path(sys.executable).parent


def shell(env: dict[str, str]) -> str:
    """What the installed command prints when it is called as by a shell."""
    path = f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"
    command = [shutil.which("dealrec", path=path) or "dealrec"]
    done = subprocess.run(command, env={**os.environ, "PATH": path, **env}, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout


def bash(words: str) -> list[str]:
    """The answers for the last of the words; a space at the end begins a new one."""
    count = len(words.split()) - (not words.endswith(" "))
    return shell({"_DEALREC_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count)}).splitlines()


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        ("dealrec in", ["init"]),
        ("dealrec run c.yaml --until e", ["effort", "export", "evaluate"]),
        ("dealrec demo --llm --until ", list(STAGE_NAMES)),
        ("dealrec export runs/x --to l", ["llamafactory"]),
        ("dealrec export runs/x --to ", list(STACK_NAMES)),
        ("dealrec export runs/x --form ", list(FORM_NAMES)),
        ("dealrec config --preset ref", ["reference"]),
        ("dealrec config --preset ", list(PRESETS)),
        ("dealrec run c.yaml --set select.bu", ["select.budget=", "select.budget_unit="]),
        ("dealrec validate c.yaml --set warmstart.ep", ["warmstart.epochs=", "warmstart.epochs=1"]),
        ("dealrec fidelity --set fidelity.se", ["fidelity.seeds=", "fidelity.seeds=2"]),
        ("dealrec fidelity --set tiger.t5.d_", [f"tiger.t5.{name}=" for name in ("d_model", "d_kv", "d_ff")]),
        ("dealrec init --set data.columns.us", ["data.columns.user=", "data.columns.user=user_id"]),
        ("dealrec run c.yaml --set nothing.of", [""]),
    ],
)
def test_values_complete_in_bash(words: str, answers: list[str]) -> None:
    assert bash(words) == answers


@pytest.mark.parametrize(
    ("typed", "answers"),
    [
        ("surrogate.kind=", ["sasrec", "gru4rec", "bert4rec", "mf", "custom"]),
        ("influence.solver.kind=", ["cg", "lissa", "arnoldi", "ekfac", "identity"]),
        ("llm.quantization=", ["null", "8bit", "4bit"]),
        ("finetune.full=t", ["true"]),
        ("finetune.epochs=", ["3"]),
        ("surrogate.kin=", []),
    ],
)
def test_zsh_completes_what_comes_after_the_equals_sign(typed: str, answers: list[str]) -> None:
    out = shell({"_DEALREC_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": f"dealrec run c.yaml --set {typed}"})
    name = typed.partition("=")[0]
    assert [line.split('"')[1] for line in out.splitlines() if '"' in line] == [f"{name}={one}" for one in answers]


def test_arms_are_those_of_the_run(tmp_path: Path) -> None:
    assert bash(f"dealrec export {tmp_path} --arm ") == ["selected", "random-0"]
    (tmp_path / "config.json").write_text(json.dumps({"select": {"selections": 3, "random_arms": 2}}))
    arms = ["selected", "selected-1", "selected-2", "random-0", "random-1"]
    assert bash(f"dealrec export {tmp_path} --arm ") == arms
    assert bash(f"dealrec export {tmp_path} --to trl --arm r") == ["random-0", "random-1"]
    (tmp_path / "config.json").write_text("{")
    assert bash(f"dealrec export {tmp_path} --arm r") == ["random-0"]


def test_every_name_that_is_offered_is_a_setting(tmp_path: Path) -> None:
    names = {name for name, _ in settings()}
    assert {"seed", "data.columns.user", "influence.solver.damping", "evaluate.ks"} <= names
    assert "data" not in names
    for name in names - {name for name in names if ".solver." in name}:
        data = {"warm_share": 0.5, "template": {"prompt": "", "completion": ""}}
        given = {"signals": {"tiger": {}} if "tiger" in name else {"llm": {}}, "data": data}
        section: object = parse(given, base=tmp_path)
        for part in name.split("."):
            section = getattr(section, part)


def test_forms_are_those_of_the_exports() -> None:
    assert FORM_NAMES == FORMS


def test_nothing_heavy_is_imported_to_complete() -> None:
    code = (
        "import os, sys; sys.argv = ['dealrec']\n"
        "os.environ |= {'_DEALREC_COMPLETE': 'complete_bash', 'COMP_CWORD': '3',\n"
        "               'COMP_WORDS': 'dealrec run --set select.bu'}\n"
        "from dealrec.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'polars', 'transformers', 'numpy', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_script_for_bash_completes_in_bash() -> None:
    """The script is read by bash itself, and its function called as bash calls it on a tab."""
    program = shutil.which("bash")
    if program is None:
        pytest.skip("there is no bash here")
    script = shell({"_DEALREC_COMPLETE": "source_bash"})
    tab = (
        'COMP_WORDS=(dealrec run c.yaml --until ev); COMP_CWORD=4; _dealrec_completion dealrec; echo "${COMPREPLY[@]}"'
    )
    env = {**os.environ, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([program, "-c", f"{script}\n{tab}"], env=env, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("evaluate\n", "")


@pytest.mark.parametrize(("name", "registers"), [("bash", "complete -o default"), ("zsh", "#compdef dealrec")])
def test_completion_is_installed(tmp_path: Path, name: str, registers: str) -> None:
    env = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [str(SCRIPTS / "dealrec"), "--install-completion", name]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(registers in text and "_DEALREC_COMPLETE" in text for text in written)
    shown = subprocess.run([command[0], "--show-completion", name], env=env, capture_output=True, text=True, check=True)
    assert registers in shown.stdout
