"""Whether a device comes to what the CPU comes to, again and again, on one card and on two: whole runs, compared."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from safetensors.torch import load_file
from scipy.stats import spearmanr

from benchmarks.gpu import made
from dealrec.config.files import load
from dealrec.engine.hashes import file_hash
from dealrec.engine.runner import run
from dealrec.engine.stage import Silent
from dealrec.stages.pipeline import stages_until

# Tables with a number a sample or a user, and the column that holds it.
TABLES = {
    "influence": ("influence/scores.parquet", "influence"),
    "effort": ("effort/details.parquet", "norm"),
    "loss": ("effort/details.parquet", "loss"),
    "loss drop": ("loss_drop/scores.parquet", "loss_drop"),
    "test loss": ("evaluate/selected/per_user.parquet", "loss"),
}
ADAPTER = "finetune/selected/adapter_model.safetensors"
REPEATED = [*dict.fromkeys(table for table, _ in TABLES.values()), ADAPTER]
RANKS = "two ranks learn what one does"
CPU = {"ACCELERATE_USE_CPU": "true"}


@dataclass(frozen=True)
class Check:
    """What was checked, whether it held (None: it could not be tried), and what was found."""

    name: str
    held: bool | None
    found: str


def agreement(one: Path, other: Path, name: str, *, tolerance: float) -> Check:
    """Whether two runs have the same numbers in the table, up to `tolerance` of the largest of the first."""
    table, column = TABLES[name]
    keys = ["sample_id"] if "sample_id" in pl.read_parquet_schema(one / table) else ["user_id"]
    both = pl.read_parquet(one / table, columns=[*keys, column]).join(
        pl.read_parquet(other / table, columns=[*keys, column]), on=keys, how="full", suffix="_other"
    )
    first, second = both[column], both[f"{column}_other"]
    if not first.is_null().equals(second.is_null()):
        return Check(name, False, "of other samples")
    largest = float((first - second).abs().max() / first.abs().max())  # type: ignore[operator,arg-type]
    ranks = float(spearmanr(first.drop_nulls(), second.drop_nulls()).statistic)
    return Check(name, largest <= tolerance, f"differs by {largest:.1e} at most, rank correlation {ranks:.4f}")


def same_files(one: Path, other: Path) -> Check:
    """Whether two runs have left the same bytes."""
    differing = [name for name in REPEATED if file_hash(one / name) != file_hash(other / name)]
    return Check("a second run", not differing, ", ".join(differing) or f"{len(REPEATED)} files byte for byte")


def same_adapter(one: Path, other: Path) -> Check:
    """Whether two trainings came to the same adapter, but for rounding."""
    first, second = (load_file(folder / ADAPTER) for folder in (one, other))
    pairs = [(first[name], second[name]) for name in first if name in second]
    differs = max(float((a - b).abs().max() / a.abs().max().clamp_min(1e-12)) for a, b in pairs)
    held = first.keys() == second.keys() and differs <= 1e-2
    return Check(RANKS, held, f"the adapters differ by {differs:.1e} at most")


def run_here(folder: Path, until: str) -> Path:
    """A run in this process, of the config in the folder."""
    settings = load(folder / "config.yaml")
    run(settings, folder / "run", stages_until(settings, until), progress=Silent())
    return folder / "run"


def run_apart(folder: Path, until: str, *, seconds: float, environment: dict[str, str]) -> Path:
    """The same in a process of its own. Raises subprocess's errors."""
    command = [sys.executable, "-m", "dealrec", "run", str(folder / "config.yaml"), "--run-dir", str(folder / "run")]
    surroundings = {**os.environ, **environment}
    command += ["--until", until]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds, env=surroundings)
    return folder / "run"


def agreements(folder: Path, *, cards: int, seconds: float) -> Iterator[Check]:
    """All comparisons. cards: GPUs in sight. seconds: for each run that has a process of its own."""
    model = made.llm(folder / "tiny", "tiny")
    made.interactions(folder, users=40, items=30)
    for name in ("cpu", "device", "again"):
        made.config(folder / name, model)
    made.config(folder / "bfloat16", model, llm={"dtype": "bfloat16"})
    made.config(folder / "ranks", model, finetune={"processes": 2}, select={"arms": {}})
    with ThreadPoolExecutor() as pool:
        on_cpu = pool.submit(run_apart, folder / "cpu", "evaluate", seconds=seconds, environment=CPU)
        again = pool.submit(run_apart, folder / "again", "evaluate", seconds=seconds, environment={})
        device, half = run_here(folder / "device", "evaluate"), run_here(folder / "bfloat16", "effort")
        cpu, repeated = on_cpu.result(), again.result()
    for name in TABLES:
        yield named(f"{name}, float32 against the CPU", agreement(cpu, device, name, tolerance=1e-2))
    for name in ("effort", "loss"):
        yield named(f"{name}, bfloat16 against float32", agreement(device, half, name, tolerance=0.1))
    yield same_files(device, repeated)
    if cards < 2:
        yield Check(RANKS, None, f"{cards} card")
    else:
        yield same_adapter(device, run_here(folder / "ranks", "finetune"))


def named(name: str, check: Check) -> Check:
    """A check by another name."""
    return Check(name, check.held, check.found)
