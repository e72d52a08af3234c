"""Jobs in processes: what is finished is kept, errors arrive as they were, nobody is left behind."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from dealrec.config import Config
from dealrec.engine.runner import run
from dealrec.engine.stage import Context, Silent, Stage
from dealrec.engine.workers import Job, in_parallel
from dealrec.errors import DealrecError, NonFinite

pytestmark = pytest.mark.slow


def context(folder: Path) -> Context:
    return Context("work", Config(), Silent(), folder, folder, ())


def write(text: str, context: Context, out: Path) -> None:
    (out / "text").write_text(text)


def fail(context: Context, out: Path) -> None:
    raise NonFinite("a cause", "a remedy")


def die(context: Context, out: Path) -> None:
    os._exit(9)


def exhaust(context: Context, out: Path) -> None:
    while not (out.parent / "a" / "text").exists():  # the other worker may be slower to start
        time.sleep(0.01)
    torch.empty(2**50)


def work(context: Context, *, workers: int) -> None:
    in_parallel(context, "jobs", {"a": partial(write, "a"), "b": exhaust}, workers=workers)


def wait(context: Context, out: Path) -> None:
    (context.out / f"pid-{os.getpid()}").touch()
    time.sleep(120)


@pytest.mark.parametrize("workers", [1, 2])
def test_each_job_fills_its_folder_and_is_done_once(tmp_path: Path, workers: int) -> None:
    jobs = {name: partial(write, name) for name in ("a", "b", "c")}
    in_parallel(context(tmp_path), "jobs", jobs, workers=workers)
    again = {name: partial(write, "again") for name in ("a", "b", "c", "d")}
    in_parallel(context(tmp_path), "jobs", again, workers=workers)
    texts = {name: (context(tmp_path).shard(name) / "text").read_text() for name in again}
    assert texts == {"a": "a", "b": "b", "c": "c", "d": "again"}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_job_is_that_of_the_call(tmp_path: Path, workers: int) -> None:
    jobs: dict[str, Job] = {"a": partial(write, "a"), "b": fail}
    with pytest.raises(NonFinite, match="a cause") as caught:
        in_parallel(context(tmp_path), "jobs", jobs, workers=workers)
    assert caught.value.remedy == "a remedy"
    assert not context(tmp_path).shard("b").exists()


def test_a_worker_that_is_killed_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(DealrecError, match="a worker process was killed") as caught:
        in_parallel(context(tmp_path), "jobs", {"a": die, "b": partial(write, "b")}, workers=2)
    assert "fewer workers" in caught.value.remedy


@pytest.mark.parametrize("workers", [1, 2])
def test_out_of_memory_is_told_in_a_line_and_what_is_finished_is_kept(tmp_path: Path, workers: int) -> None:
    """The allocator's own words: no machine has a petabyte."""
    stage = Stage("work", 1, partial(work, workers=workers))
    with pytest.raises(DealrecError, match=r"work: out of memory \(.*allocate memory") as caught:
        run(Config(), tmp_path / "run", (stage,), progress=Silent())
    assert "\n" not in str(caught.value)
    assert "fewer workers" in caught.value.remedy
    assert list((tmp_path / "run" / "work.part").glob("shards/*/a/text"))


SCRIPT = """
import sys
from pathlib import Path
from dealrec.engine.workers import in_parallel
from tests.engine.test_workers import context, wait
if __name__ == "__main__":
    in_parallel(context(Path(sys.argv[1])), "jobs", {"a": wait, "b": wait}, workers=2)
"""


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path: Path, signal_: signal.Signals) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    root = Path(__file__).parent.parent.parent
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stderr=subprocess.DEVNULL,
    )
    pids = wait_for_two(tmp_path)
    parent.send_signal(signal_)
    parent.wait(timeout=20)
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.1)


def wait_for_two(folder: Path) -> list[int]:
    deadline = time.monotonic() + 60
    while len(found := list(folder.glob("pid-*"))) < 2:
        assert time.monotonic() < deadline, "the workers did not start"
        time.sleep(0.1)
    return [int(path.name.removeprefix("pid-")) for path in found]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
