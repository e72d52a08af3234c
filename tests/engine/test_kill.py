"""A run that is killed at random instants ends with the tables of one that was not."""

import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from tests.conftest import Cli

pytestmark = pytest.mark.slow

KILLS = 4
# Killed runs are forked from a process that has imported what takes long: the kills strike while something is computed.
IMPORTED = ["peft", "transformers.trainer", "transformers.models.llama.modeling_llama", "dealrec.cli.commands"]
FORKING = get_context("forkserver")


def dealrec_run(config: Path, run_dir: Path) -> None:
    from dealrec.cli import main

    sys.argv = ["dealrec", "run", str(config), "--run-dir", str(run_dir)]
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        main()


def start(config: Path, run_dir: Path) -> ForkServerProcess:
    process = FORKING.Process(target=dealrec_run, args=(config, run_dir))
    process.start()
    return process


def finish(config: Path, run_dir: Path) -> None:
    process = start(config, run_dir)
    process.join()
    assert process.exitcode == 0  # its stderr is shown when the test fails


def tables(run_dir: Path) -> dict[str, bytes]:
    return {path.relative_to(run_dir).as_posix(): path.read_bytes() for path in run_dir.rglob("*.parquet")}


def test_killed_at_random_instants_and_resumed(cli: Cli, write_config: Callable[..., Path], tmp_path: Path) -> None:
    config = write_config()
    FORKING.set_forkserver_preload(IMPORTED)
    finish(config, tmp_path / "first")  # the first one waits for the imports
    begin = time.monotonic()
    finish(config, tmp_path / "second")
    whole = time.monotonic() - begin
    draw = random.Random()
    seconds = sorted(draw.uniform(0.05, 1.0) * whole for _ in range(KILLS))
    print("kills after", seconds)  # shown when the test fails
    for instant in seconds:
        process = start(config, tmp_path / "killed")
        process.join(instant)
        process.kill()
        process.join()
    finish(config, tmp_path / "killed")
    assert cli("run", config, "--run-dir", tmp_path / "undisturbed")[0] == 0  # here, with other hashes of texts
    undisturbed, killed = tables(tmp_path / "undisturbed"), tables(tmp_path / "killed")
    assert sorted(killed) == sorted(undisturbed)
    assert [name for name in undisturbed if killed[name] != undisturbed[name]] == []
    left = [path.name for path in (tmp_path / "killed").iterdir() if path.suffix in {".part", ".old"}]
    assert left == []
