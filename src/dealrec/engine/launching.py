"""One training in several processes, a device each, started by `accelerate launch`."""

import hashlib
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

from dealrec.devices import compute_device, reproducible
from dealrec.engine.faults import LESS_MEMORY
from dealrec.engine.measure import Meter, note_peak
from dealrec.engine.stage import Context, Silent
from dealrec.engine.workers import Job, end_unless
from dealrec.errors import DealrecError

JOB, REFUSAL = "job.pickle", "refusal.json"
OUTCOME = "outcome-{}.json"  # of each process, by its rank: the facts and the peak memory
PROCESS_COUNT = "DEALREC_LAUNCHED"  # in the environment of the processes that are started: how many there are
PATIENCE = 10  # seconds that they have to end in


def on_devices(context: Context, job: Job, out: Path, *, processes: int) -> None:
    """Call job(context, out) here, or at once in as many processes, which accelerate joins to one training.

    Each of them has its own copy of the model, on the device of its rank (`compute_device`); what the job writes only
    the first may write. Which GPUs there are the user's own `accelerate config` may say. The processes end with this
    one, and with an interrupt that this one survives.
    """
    if processes == 1:
        job(context, out)
        return
    kind = compute_device().type
    with TemporaryDirectory() as folder:
        content = pickle.dumps((replace(context, progress=Silent()), job, out))
        (Path(folder) / JOB).write_bytes(content)
        command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
        command += ["--num_machines", "1", "--main_process_port", "0", "--multi_gpu"]  # port 0: any that is free
        command += ["--log_dir", folder]  # or a folder of its own would be left for good
        command += ["--module", "dealrec.engine.launching", folder, str(os.getpid()), _digest(content)]
        # With --cpu, accelerate would start a single process; several CPUs it is told so.
        on_cpus = {"ACCELERATE_USE_CPU": "true"} if kind == "cpu" else {}
        environment = {**os.environ, PROCESS_COUNT: str(processes), **on_cpus}
        with (
            context.progress.bar(f"{context.name}: {out.name.partition('@')[0]}, in {processes} processes"),
            _ending(subprocess.Popen(command, env=environment, stdout=DEVNULL, stderr=PIPE, text=True)) as launcher,
        ):
            messages = launcher.communicate()[1]
        if (refusal := Path(folder) / REFUSAL).exists():
            raise DealrecError(*json.loads(refusal.read_text()))
        if launcher.returncode and any(
            words in messages for words in ("OutOfMemoryError", "allocate memory", "(SIGKILL)")
        ):
            raise DealrecError(
                f"{context.name}: one of {processes} processes found no memory, or was killed, probably for lack of it",
                f"{LESS_MEMORY}: what is finished is kept.",
            )
        if launcher.returncode:
            raise DealrecError(
                f"{context.name}: training in {processes} processes failed:\n{messages.strip()}",
                "Check the devices (accelerate env), or train in one process (processes: 1).",
            )
        outcomes = [json.loads((Path(folder) / OUTCOME.format(rank)).read_text()) for rank in range(processes)]
    for outcome in outcomes:
        note_peak(outcome["peak"])
    context.facts |= outcomes[0]["facts"] | {"device": f"{processes} x {kind}"}


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
    return PROCESS_COUNT not in os.environ or os.environ["RANK"] == "0"


def main() -> None:
    """What each of the processes does."""
    import torch

    folder, caller = Path(sys.argv[1]), int(sys.argv[2])
    launcher = os.getppid()
    end_unless(lambda: os.getppid() == launcher and _lives(caller))  # an orphan would compute on for nobody
    if os.environ.get("WORLD_SIZE") != os.environ[PROCESS_COUNT]:
        raise RuntimeError(
            f"accelerate joined {os.environ.get('WORLD_SIZE')} processes, not {os.environ[PROCESS_COUNT]}"
        )
    if (device := compute_device()).type == "cuda":  # or what names no GPU would be put on the first by all
        torch.cuda.set_device(device)
    content = (folder / JOB).read_bytes()
    if _digest(content) != sys.argv[3]:  # the one pickle that is opened is the one that on_devices wrote a moment ago
        raise RuntimeError(f"{folder / JOB} is not what the process that started this one wrote")
    context, job, out = pickle.loads(content)
    meter = Meter()
    try:
        with reproducible():
            job(context, out)
    except DealrecError as error:
        (folder / REFUSAL).write_text(json.dumps([error.cause, error.remedy]))
        raise
    peak = meter.read(device=device.type).peak_memory_bytes
    (folder / OUTCOME.format(os.environ["RANK"])).write_text(json.dumps({"facts": context.facts, "peak": peak}))
    if torch.distributed.is_initialized():  # its threads now and then abort a process that ends with them
        torch.distributed.destroy_process_group()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
