"""Whole runs and comparisons that are hurt: the finished is kept, what is said is one line, and the end is the same.

docs/reliability.md lists what is tried here. DEALREC_KILLS=200 kills as many times instead of four.
"""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from dealrec.engine.manifest import MANIFEST, read_manifest
from tests.conftest import Cli, write_small_config

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("DEALREC_KILLS", "4"))
# Hurt runs are forked from a process that has imported what takes long: faults strike while something is computed.
IMPORTED = ["peft", "transformers.trainer", "transformers.models.llama.modeling_llama", "dealrec.cli.commands"]
FORKING = get_context("forkserver")
COMPARED: dict[str, Any] = {
    "select": {"method": "surrogate-loss-drop", "budget": 6},
    "pool": {"size": 20},
    "compare": {"methods": [], "replicates": 2, "random_sizes": [1]},
}


def command_line(arguments: list[str], errors: Path, file_size: int | None) -> None:
    from dealrec.cli import main

    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
    sys.argv = ["dealrec", *arguments]
    with Path(os.devnull).open("w") as nowhere, errors.open("w") as err, redirect_stdout(nowhere), redirect_stderr(err):
        main()


def start(command: str, config: Path, run_dir: Path, *, file_size: int | None = None) -> ForkServerProcess:
    arguments = [command, str(config), "--run-dir", str(run_dir)]
    process = FORKING.Process(target=command_line, args=(arguments, errors_of(config), file_size))
    process.start()
    return process


def errors_of(config: Path) -> Path:
    return config.with_name("errors.txt")


def finish(command: str, config: Path, run_dir: Path) -> str:
    """Run to the end; what it said."""
    process = start(command, config, run_dir)
    process.join()
    said = errors_of(config).read_text()
    assert process.exitcode == 0, said
    return said


def tables(run_dir: Path) -> dict[str, bytes]:
    return {path.relative_to(run_dir).as_posix(): path.read_bytes() for path in run_dir.rglob("*.parquet")}


def assert_same(run_dir: Path, undisturbed: Path) -> None:
    """The tables of both, byte for byte, and nothing left of what was begun."""
    expected, hurt = tables(undisturbed), tables(run_dir)
    assert sorted(hurt) == sorted(expected)
    assert [name for name in expected if hurt[name] != expected[name]] == []
    assert [path.name for path in run_dir.rglob("*") if path.suffix in {".part", ".old", ".tmp"}] == []


def one_line(said: str) -> str:
    """The last line, of output without a traceback."""
    assert "Traceback" not in said, said
    return said.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_llm: Path) -> Path:
    return write_small_config(tmp_path_factory.mktemp("faults"), tiny_llm)


@pytest.fixture(scope="module")
def whole(config: Path) -> tuple[Path, float]:
    """A run that nothing disturbs, and how long it takes."""
    FORKING.set_forkserver_preload(IMPORTED)
    finish("run", config, config.parent / "first")  # it waits for the imports
    begin = time.monotonic()
    finish("run", config, config.parent / "whole")
    return config.parent / "whole", time.monotonic() - begin


def test_killed_at_random_instants(config: Path, whole: tuple[Path, float], tmp_path: Path) -> None:
    undisturbed, seconds = whole
    strike("run", config, tmp_path / "run", seconds, KILLS)
    assert_same(tmp_path / "run", undisturbed)


def test_a_comparison_is_killed_at_random_instants_and_damaged(tmp_path: Path, tiny_llm: Path) -> None:
    config = write_small_config(tmp_path / "compare", tiny_llm, **COMPARED)
    FORKING.set_forkserver_preload(IMPORTED)
    begin = time.monotonic()
    finish("compare", config, tmp_path / "whole")
    strike("compare", config, tmp_path / "hurt", time.monotonic() - begin, max(1, KILLS // 4))
    assert_same(tmp_path / "hurt", tmp_path / "whole")
    settings, table = (
        tmp_path / "hurt" / name for name in ("comparison-config.json", "replicate-1/data/items.parquet")
    )
    for path in (settings, table):
        os.truncate(path, 9)
    said = finish("compare", config, tmp_path / "hurt")
    assert f"{settings} is damaged" in said
    assert f"{table} is damaged: it has 9 bytes" in said
    assert_same(tmp_path / "hurt", tmp_path / "whole")


def strike(command: str, config: Path, run_dir: Path, seconds: float, kills: int) -> None:
    """Kill it so often, a moment later each time until it ends before; then let it end."""
    draw = random.Random()
    begun = 0
    while begun < kills:
        round_ = min(4, kills - begun)
        instants = sorted(draw.uniform(0.05, 1.0) * seconds for _ in range(round_))
        print("kills after", instants)  # shown when the test fails
        for instant in instants:
            process = start(command, config, run_dir)
            process.join(instant)
            process.kill()
            process.join()
        begun += round_
        if begun < kills:
            finish(command, config, run_dir)
            shutil.rmtree(run_dir)
    finish(command, config, run_dir)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_one_line(
    config: Path, whole: tuple[Path, float], tmp_path: Path, number: signal.Signals
) -> None:
    undisturbed, _ = whole
    process = start("run", config, tmp_path / "run")
    while not (tmp_path / "run" / "surrogate").exists():
        assert process.is_alive()
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 128 + number
    assert "run the same command again to resume" in one_line(errors_of(config).read_text())
    if number == signal.SIGTERM:  # the others end it in the same way
        finish("run", config, tmp_path / "run")
        assert_same(tmp_path / "run", undisturbed)


def test_damaged_files_are_named_and_made_again(config: Path, whole: tuple[Path, float], tmp_path: Path) -> None:
    """One bit of a file of each stage, of the middle of it; then what is no table."""
    undisturbed, _ = whole
    run_dir = Path(shutil.copytree(undisturbed, tmp_path / "run"))
    damaged = []
    for folder in sorted(path.parent for path in run_dir.glob(f"*/{MANIFEST}")):
        manifest = read_manifest(folder)
        assert manifest is not None
        if not manifest.sizes:
            continue
        name = max(manifest.sizes, key=lambda name: (manifest.sizes[name], name))
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
        damaged.append(f"{folder / name} is damaged: its SHA-256 is not that of what was written; made again")
    said = finish("run", config, run_dir)
    assert [line for line in damaged if line not in said] == []
    assert_same(run_dir, undisturbed)

    cut = [run_dir / "influence" / MANIFEST, run_dir / "config.json", run_dir / "loss_drop" / "scores.parquet"]
    for path in [path for path in cut if path.exists()]:
        os.truncate(path, path.stat().st_size // 2)
    said = finish("run", config, run_dir)
    assert f"{run_dir / 'influence' / MANIFEST} is damaged: it cannot be read; made again" in said
    assert_same(run_dir, undisturbed)


def test_commands_that_read_refuse_what_is_damaged(cli: Cli, whole: tuple[Path, float], tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(whole[0], tmp_path / "run"))
    path = run_dir / "select" / "selected.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    status, out, err = cli("status", run_dir)
    assert (status, "damaged" in out) == (0, True), err
    status, _, err = cli("report", run_dir, "--out", tmp_path / "report.html")
    assert status == 0
    assert "The stage finetune rests on a stage that is damaged" in err
    assert "other settings" not in err
    status, _, err = cli("export", run_dir, "--to", "trl", "--out", tmp_path / "out")
    assert status == 2
    assert f"{path} is damaged: its SHA-256 is not that of what was written. Make it again with" in one_line(err)
    assert not (tmp_path / "out").exists()
    path = run_dir / "config.json"
    os.truncate(path, 10)
    status, _, err = cli("status", run_dir)
    assert status == 2
    assert f"{path} is damaged: it is no JSON" in one_line(err)


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_no_room_left(config: Path, whole: tuple[Path, float], tmp_path: Path, share: float) -> None:
    """A limit on the size of files refuses a write in the middle of it, as a full disk does."""
    undisturbed, _ = whole
    files = [path.stat().st_size for path in undisturbed.rglob("*") if path.is_file()]
    sizes = sorted(size for size in files if size > 2000)  # what it says must find room
    process = start("run", config, tmp_path / "run", file_size=sizes[int(share * len(sizes))])
    process.join()
    assert process.exitcode == 2
    assert "File too large" in one_line(errors_of(config).read_text())
    finish("run", config, tmp_path / "run")
    assert_same(tmp_path / "run", undisturbed)


@pytest.mark.parametrize("options", ["size=200k", "ro"])
def test_a_file_system_that_is_full_or_read_only(
    config: Path, whole: tuple[Path, float], tmp_path: Path, options: str
) -> None:
    with mounted(tmp_path / "disk", options):
        process = start("run", config, tmp_path / "disk" / "run")
        process.join()
        said = one_line(errors_of(config).read_text())
        assert process.exitcode == 2
        assert ("Read-only file system" if options == "ro" else "No space left on device") in said
        if options != "ro":
            subprocess.run(["mount", "-o", "remount,size=100m", tmp_path / "disk"], check=True)
            finish("run", config, tmp_path / "disk" / "run")
            assert_same(tmp_path / "disk" / "run", whole[0])


@contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    """A small disk of its own in memory; skips where one may not be mounted."""
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting a disk is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def test_two_at_once(config: Path, whole: tuple[Path, float], tmp_path: Path) -> None:
    """The second is refused, the first goes on."""
    first = start("run", config, tmp_path / "run")
    while not (tmp_path / "run" / "data").exists():
        assert first.is_alive()
        time.sleep(0.01)
    second = start("run", config, tmp_path / "run")
    second.join()
    assert second.exitcode == 2
    first.join()
    assert first.exitcode == 0
    assert_same(tmp_path / "run", whole[0])


def test_a_clock_that_goes_backwards(
    cli: Cli, config: Path, whole: tuple[Path, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of the future and of 1970, and a clock that loses an hour at each look: nothing is made again for it."""
    run_dir = Path(shutil.copytree(whole[0], tmp_path / "run"))
    for number, path in enumerate(sorted(run_dir.rglob("*"))):
        moment = 4e9 if number % 2 else 0.0
        os.utime(path, (moment, moment))
    now = iter(range(4 * 10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    monkeypatch.setattr(time, "time_ns", lambda: next(now) * 10**9)
    changed = ("--set", "evaluate.ks=[2]")
    status, _, err = cli("run", config, "--run-dir", run_dir, *changed)
    assert status == 0, err
    ran = read_manifest(run_dir / "evaluate")
    assert ran is not None
    assert ran.wall_seconds >= 0
    assert tables(run_dir)["select/selected.parquet"] == tables(whole[0])["select/selected.parquet"]
    kept = read_manifest(run_dir / "surrogate"), read_manifest(whole[0] / "surrogate")
    assert kept[0] == kept[1]  # not made again: the times that it took are those of before


def test_an_interrupted_rename(config: Path, whole: tuple[Path, float], tmp_path: Path) -> None:
    """Killed between the two steps of putting a stage in the place of an earlier one, and before the first."""
    run_dir = Path(shutil.copytree(whole[0], tmp_path / "run"))
    (run_dir / "surrogate").rename(run_dir / "surrogate.old")
    (run_dir / "select").rename(run_dir / "select.part")
    finish("run", config, run_dir)
    assert_same(run_dir, whole[0])


def test_what_an_interrupted_run_has_finished_is_looked_at(
    config: Path, whole: tuple[Path, float], tmp_path: Path
) -> None:
    """As after a loss of power: names are there, contents are not."""
    process = start("run", config, tmp_path / "run")
    finished = tmp_path / "run" / "finetune.part" / "units"
    while not list(finished.glob("*@????????????????")):
        assert process.is_alive()
        time.sleep(0.005)
    process.kill()
    process.join()
    (unit, *_) = finished.glob("*@????????????????")
    os.truncate(max((path for path in unit.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size), 0)
    said = finish("run", config, tmp_path / "run")
    assert f"{unit} is damaged: it is not as it was written; made again" in said
    assert_same(tmp_path / "run", whole[0])


def swallow() -> None:
    """What finalising an object does to an exception."""
    from dealrec.cli.entry import _end

    signal.signal(signal.SIGTERM, _end)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    except SystemExit:
        pass
    time.sleep(30)


def test_a_signal_that_is_lost_is_raised_again() -> None:
    process = FORKING.Process(target=swallow)
    begin = time.monotonic()
    process.start()
    process.join()
    assert process.exitcode == 128 + signal.SIGTERM
    assert time.monotonic() - begin < 25
