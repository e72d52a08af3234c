"""A run that is killed at random instants ends with the tables of one that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

KILLS = 4


def start(config: Path, run_dir: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dealrec", "run", str(config), "--run-dir", str(run_dir)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)


def finish(config: Path, run_dir: Path) -> None:
    process = start(config, run_dir)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()


def tables(run_dir: Path) -> dict[str, bytes]:
    return {path.relative_to(run_dir).as_posix(): path.read_bytes() for path in run_dir.rglob("*.parquet")}


def test_killed_at_random_instants_and_resumed(write_config: Callable[..., Path], tmp_path: Path) -> None:
    config = write_config()
    begin = time.monotonic()
    finish(config, tmp_path / "undisturbed")
    whole = time.monotonic() - begin
    draw = random.Random()
    seconds = sorted(draw.uniform(0.1, 1.0) * whole for _ in range(KILLS))
    print("kills after", seconds)  # shown when the test fails
    for instant in seconds:
        process = start(config, tmp_path / "killed")
        try:
            process.wait(instant)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    finish(config, tmp_path / "killed")
    undisturbed, killed = tables(tmp_path / "undisturbed"), tables(tmp_path / "killed")
    assert sorted(killed) == sorted(undisturbed)
    assert [name for name in undisturbed if killed[name] != undisturbed[name]] == []
    left = [path.name for path in (tmp_path / "killed").iterdir() if path.suffix in {".part", ".old"}]
    assert left == []
