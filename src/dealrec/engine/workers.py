"""Jobs of one thread each, in several processes; a finished job is a shard that survives a kill."""

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from multiprocessing import active_children, get_context
from pathlib import Path

from dealrec.devices import reproducible
from dealrec.engine.stage import Context, Silent
from dealrec.errors import DealrecError

Job = Callable[[Context, Path], None]  # fills a folder; must be picklable


def in_parallel(context: Context, label: str, jobs: Mapping[str, Job], *, workers: int) -> None:
    """Fill the folder of each job that is not there yet, in processes of one thread."""
    missing = {name: job for name, job in jobs.items() if not context.shard(name).exists()}
    quiet = replace(context, progress=Silent())
    calls = [partial(_fill, quiet, name, job) for name, job in missing.items()]
    with context.progress.bar(f"{context.name}: {label}", len(missing)) as advance:
        if min(workers, len(missing)) > 1:
            in_processes(context.name, calls, workers=workers, advance=advance)
            return
        for call in calls:
            call()
            advance()


def in_processes(name: str, calls: Sequence[Callable[[], None]], *, workers: int, advance: Callable[[], None]) -> None:
    """Make picklable calls in as many processes at a time; what one raises ends all.

    advance: called when a call has ended. Raises DealrecError, which calls the whole `name`, if a process was killed.
    """
    pool = ProcessPoolExecutor(
        min(workers, len(calls)), get_context("spawn"), initializer=end_with, initargs=(os.getpid(),)
    )
    with pool:
        try:
            futures = [pool.submit(call) for call in calls]
            for future in as_completed(futures):
                future.result()
                advance()
        except BrokenProcessPool:
            raise DealrecError(
                f"{name}: a worker process was killed, probably for lack of memory",
                "Use fewer workers and run again: what is finished is kept.",
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in active_children():  # or leaving would wait for the calls that are running
                child.terminate()
            raise


def end_with(parent: int) -> None:
    """Have a worker end when its parent does, however that ended: an orphan would compute on for nobody."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent sees to the workers
    end_unless(lambda: os.getppid() == parent)


def end_unless(wanted: Callable[[], bool]) -> None:
    """From now on, end this process within a second of being wanted no more."""

    def watch() -> None:
        while wanted():
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _fill(context: Context, name: str, job: Job) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # many threads would only wait for each other, and sums would depend on their number
    try:
        with reproducible():
            context.shard_once(name, partial(job, context))
    finally:
        torch.set_num_threads(before)
