"""One training in several processes, a device each, started by `accelerate launch`."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from subprocess import DEVNULL, PIPE
from tempfile import TemporaryDirectory

from dealrec.engine.stage import Context, Silent
from dealrec.engine.workers import Job, end_unless
from dealrec.errors import DealrecError

JOB, REFUSAL = "job.pickle", "refusal.json"
LAUNCHED = "DEALREC_LAUNCHED"  # in the environment of the processes that are started: how many there are
PATIENCE = 10  # seconds that they have to end in


def on_devices(context: Context, job: Job, out: Path, *, processes: int) -> None:
    """Call job(context, out) here, or at once in as many processes, which accelerate joins to one training.

    Each of them has its own copy of the model; what the job writes only the first may write. accelerate chooses the
    devices, and goes by the user's own `accelerate config` where there is one; without CUDA they are CPUs. The
    processes end with this one, and with an interrupt that this one survives.
    """
    if processes == 1:
        job(context, out)
        return
    import torch

    cuda = torch.cuda.is_available()
    with TemporaryDirectory() as folder:
        (Path(folder) / JOB).write_bytes(pickle.dumps((replace(context, progress=Silent()), job, out)))
        command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
        command += ["--num_machines", "1", "--main_process_port", "0", "--multi_gpu"]  # port 0: any that is free
        command += ["--module", "dealrec.engine.launching", folder, str(os.getpid())]
        # With --cpu, accelerate would start a single process; several CPUs it is told so.
        surroundings = {**os.environ, LAUNCHED: str(processes), **({} if cuda else {"ACCELERATE_USE_CPU": "true"})}
        with (
            context.progress.bar(f"{context.name}: {out.name.partition('@')[0]}, in {processes} processes"),
            _ending(subprocess.Popen(command, env=surroundings, stdout=DEVNULL, stderr=PIPE, text=True)) as launcher,
        ):
            told = launcher.communicate()[1]
        context.facts["device"] = f"{processes} x {'cuda' if cuda else 'cpu'}"
        if (refusal := Path(folder) / REFUSAL).exists():
            raise DealrecError(*json.loads(refusal.read_text()))
        if launcher.returncode:
            raise DealrecError(
                f"{context.name}: training in {processes} processes failed:\n{told.strip()}",
                "Check the devices (accelerate env), or train in one process (processes: 1).",
            )


@contextmanager
def _ending(launcher: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """While open it may run; then it has ended, and with it the processes that it started."""
    try:
        yield launcher
    finally:
        launcher.terminate()  # on which it ends its own processes
        try:
            launcher.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            launcher.kill()
            launcher.wait()


def is_first() -> bool:
    """Whether this process is the only one of its training, or the first."""
    return LAUNCHED not in os.environ or os.environ["RANK"] == "0"


def main() -> None:
    """What each of the processes does."""
    folder, caller = Path(sys.argv[1]), int(sys.argv[2])
    launcher = os.getppid()
    end_unless(lambda: os.getppid() == launcher and _lives(caller))  # an orphan would compute on for nobody
    if os.environ.get("WORLD_SIZE") != os.environ[LAUNCHED]:
        raise RuntimeError(f"accelerate joined {os.environ.get('WORLD_SIZE')} processes, not {os.environ[LAUNCHED]}")
    context, job, out = pickle.loads((folder / JOB).read_bytes())  # written a moment ago, by on_devices
    try:
        job(context, out)
    except DealrecError as error:
        (folder / REFUSAL).write_text(json.dumps([error.cause, error.remedy]))
        raise


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
