"""One training in several processes, a device each, started by `accelerate launch`."""

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from dealrec.errors import DealrecError
from dealrec.pipeline.stage import Context, Silent
from dealrec.pipeline.workers import Job

JOB, REFUSAL = "job.pickle", "refusal.json"


def on_devices(context: Context, job: Job, out: Path, *, processes: int) -> None:
    """Call job(context, out) here, or at once in as many processes, which accelerate joins to one training.

    Each of them has its own copy of the model; what the job writes only the first may write. accelerate chooses the
    devices, and goes by the user's own `accelerate config` where there is one; without CUDA they are CPUs. The
    processes end with this one, however it ends.
    """
    if processes == 1:
        job(context, out)
        return
    import torch

    with TemporaryDirectory() as folder:
        (Path(folder) / JOB).write_bytes(pickle.dumps((replace(context, progress=Silent()), job, out)))
        command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
        command += ["--num_machines", "1", "--main_process_port", "0"]  # 0: any that is free
        command += ["--multi_gpu"] if torch.cuda.is_available() else ["--cpu"]
        command += ["--module", "dealrec.pipeline.launching", folder, str(os.getpid())]
        with context.progress.bar(f"{context.name}: {out.stem}, in {processes} processes"):
            done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        context.facts["device"] = f"{processes} x {'cuda' if torch.cuda.is_available() else 'cpu'}"
        if (refusal := Path(folder) / REFUSAL).exists():
            raise DealrecError(*json.loads(refusal.read_text()))
        if done.returncode:
            raise DealrecError(
                f"{context.name}: training in {processes} processes failed:\n{done.stderr.strip()}",
                "Check the devices (accelerate env), or train in one process (processes: 1).",
            )


def is_first() -> bool:
    """Whether this process is the only one of its training, or the first."""
    return int(os.environ.get("RANK", "0")) == 0


def main() -> None:
    """What each of the processes does."""
    folder, parent = Path(sys.argv[1]), int(sys.argv[2])
    threading.Thread(target=_end_with, args=[parent], daemon=True).start()
    context, job, out = pickle.loads((folder / JOB).read_bytes())  # written a moment ago, by on_devices
    try:
        job(context, out)
    except DealrecError as error:
        (folder / REFUSAL).write_text(json.dumps([error.cause, error.remedy]))
        raise


def _end_with(process: int) -> None:
    """End this process when that one has: an orphan would compute on for nobody."""
    while True:
        try:
            os.kill(process, 0)
        except OSError:
            os._exit(1)
        time.sleep(1)


if __name__ == "__main__":
    main()
