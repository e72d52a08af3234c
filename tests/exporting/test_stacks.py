"""What the stacks themselves make of an export: the tokens and the mask of our own fine-tuning, and a training.

A stack is looked for beside the tests and in an environment of its own, $DEALREC_STACKS/NAME; `make test-exports` makes
these. Without it its tests are skipped.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dealrec.exporting import export
from tests.exporting.conftest import Make

pytestmark = pytest.mark.stacks

READERS = Path(__file__).parent / "readers"
TRAIN = {
    "trl": ["trl", "sft", "--config", "sft.yaml", "--max_steps", "1"],
    "llamafactory": ["llamafactory-cli", "train", "train.yaml", "max_steps=1"],
    "axolotl": ["axolotl", "train", "axolotl.yaml", "--max-steps", "1"],
}
FORMS = [("trl", "text"), ("trl", "messages"), ("trl", "tokens")]
FORMS += [(stack, form) for stack in ("llamafactory", "axolotl") for form in ("text", "tokens")]

Tokens = list[list[list[int]]]


def binaries(stack: str) -> Path:
    """Where the stack's commands are; skips the test without it."""
    own = Path(os.environ.get("DEALREC_STACKS", "nowhere")) / stack / "bin"
    if own.is_dir():
        return own
    if importlib.util.find_spec(stack) is None:
        pytest.skip(f"{stack} is not installed; make test-exports installs it")
    return Path(sys.executable).parent


@pytest.fixture(autouse=True)
def installed(stack: str) -> None:
    """Skips the test before a run is made that it would not read."""
    binaries(stack)


def call(command: list[str], stack: str, folder: Path) -> str:
    """Run a command of the stack's environment in the folder, offline and without a GPU."""
    path = binaries(stack)
    surroundings = {
        **os.environ,
        "PATH": f"{path}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "AXOLOTL_DO_NOT_TRACK": "1",
        "HF_HOME": str(folder.parent / "hf-home"),
    }
    done = subprocess.run(
        [str(path / command[0]), *command[1:]],
        cwd=folder,
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-1000:]
    return done.stdout


def read(stack: str, folder: Path) -> Tokens:
    """input_ids and labels of each sample, by the stack's own loader."""
    found: Tokens = json.loads(call(["python", str(READERS / f"{stack}_reader.py")], stack, folder).splitlines()[-1])
    return found


def expected(run_dir: Path, folder: Path) -> Tokens:
    """The same of our own fine-tuning: what the plain export of tokens holds, which test_exports compares."""
    tokens = export(run_dir, to="jsonl", form="tokens", out=folder / "expected").folder / "train.jsonl"
    rows = [json.loads(line) for line in tokens.read_text().split("\n") if line]
    return [[row["input_ids"], row["labels"]] for row in rows]


def differing(found: Tokens, wanted: Tokens) -> int:
    assert len(found) == len(wanted)
    return sum(one != other for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize(("stack", "form"), FORMS)
def test_a_stack_reads_the_tokens_and_the_mask_of_our_own_fine_tuning(
    run_dir: Path, tmp_path: Path, stack: str, form: str
) -> None:
    made = export(run_dir, to=stack, form=form, out=tmp_path / "export")
    found = read(stack, made.folder)
    assert differing(found, expected(run_dir, tmp_path)) == made.differing
    # LLaMA-Factory fills in the {{idx}} of two hostile titles; nothing else differs anywhere.
    assert (made.differing > 0) == ((stack, form) == ("llamafactory", "text"))


@pytest.mark.parametrize(("stack", "form"), FORMS)
def test_it_trains_on_the_files_as_they_are(run_dir: Path, tmp_path: Path, stack: str, form: str) -> None:
    made = export(run_dir, to=stack, form=form, out=tmp_path / "export")
    call(TRAIN[stack], stack, made.folder)
    adapter = json.loads((made.folder / "trained" / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"], set(adapter["target_modules"])) == (2, 16, {"q_proj", "v_proj"})


@pytest.mark.parametrize("stack", sorted(TRAIN))
def test_where_tokens_merge_across_the_boundary_the_figure_is_the_stack_s_own(
    make_run: Make, merging_llm: Path, tmp_path: Path, stack: str
) -> None:
    made_run = make_run(model=merging_llm, llm={"prompt": {"template": "{history} ->"}})
    made = export(made_run, to=stack, out=tmp_path / "export")
    assert differing(read(stack, made.folder), expected(made_run, tmp_path)) == made.differing
    if stack != "llamafactory":  # there {{idx}} counts
        assert made.differing == (made.samples if stack == "trl" else 0)


@pytest.mark.parametrize("stack", sorted(TRAIN))
def test_the_same_with_the_tokenizer_of_smollm2(make_run: Make, smollm: Path, tmp_path: Path, stack: str) -> None:
    made_run = make_run(model=smollm)
    made = export(made_run, to=stack, out=tmp_path / "export")
    assert differing(read(stack, made.folder), expected(made_run, tmp_path)) == made.differing
    assert (made.differing > 0) == (stack == "llamafactory")
