"""Influence of all training samples: dealrec against dattri, pyDVL, kronfluence and captum, in one run.

    python benchmarks/peers.py [--units 1000] [--threads 2] [--cache DIR] [--games TABLE] [--out peers.json]

One small SASRec, its parameters and its data are drawn and trained once and handed to all. Each library runs in an
environment of its own, which is made under --cache and used again as long as its requirements are the same, with the
torch that dealrec runs on. Right before a peer dealrec does the same job in a process of its own: influence on the mean
loss of a held-out set, by the same kind of solver, damping and parameters. How a peer is called is said in peers/.

Table and JSON give seconds (the fastest of --repeats), the peer's by dealrec's (above 1: dealrec is ahead), whether
both found the same scores (agreement: Spearman; in the JSON also the largest difference by the largest score), and how
close each is to the exact solution (exact: Spearman). The JSON has the ratio of processor times too, which other
programs on the machine disturb less.

The data are drawn with the lengths of Amazon Games, or read from the table that --games names (user_id, item_id,
position, split).
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_dir
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

HERE = Path(__file__).resolve().parent / "peers"
TORCH = torch.__version__.split("+")[0]


@dataclass(frozen=True)
class Peer:
    """script: run_<script>.py. ours: the method of run_dealrec.py that does the same job. note: what differs."""

    script: str
    requirement: str
    method: str
    ours: str
    note: str

    @property
    def which(self) -> str:
        """The parameters that scores are about."""
        return self.ours.split(":")[1]


PEERS = [
    Peer("dattri", "dattri==0.3.0", "cg-rev-rev", "cg:block", "one padded batch for the Hessian, its graph kept"),
    Peer("pydvl", "pyDVL[influence]==0.10.0", "cg", "cg:block", "the same job"),
    Peer("kronfluence", "kronfluence==1.0.1", "ekfac", "ekfac:linear", "other draws of labels"),
    Peer("captum", "captum==0.9.0", "arnoldi", "arnoldi:linear", "leaves out what lies outside of its eigenvectors"),
    Peer("captum", "captum==0.9.0", "arnoldi", "cg:linear", "approximate against exact: the same question"),
]


class Failed(Exception):
    """A command failed; the message is what it said last."""


def main() -> None:
    """Prepare the task, run all pairs, print the table, write the JSON."""
    options = arguments()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        settings = prepared(options, folder)
        for peer in PEERS:
            say(f"{peer.script} ({peer.method}) against dealrec ({peer.ours}) ...")
            rows.append({"peer": peer.script, "method": peer.method, "ours": peer.ours, "note": peer.note})
            try:
                rows[-1] |= compared(peer, folder, cache=options.cache, threads=options.threads)
            except Failed as error:
                rows[-1]["error"] = str(error)
                say(f"  failed: {error}")
    result = {
        "machine": platform.machine(),
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "settings": settings,
        "rows": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    Console(width=170).print(table(rows, settings))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=1000, help="training samples")
    parser.add_argument("--held-out", type=int, default=200, help="samples whose mean loss is the target")
    parser.add_argument("--items", type=int, default=17_000, help="size of the drawn catalogue")
    parser.add_argument("--games", help="a real table of interactions to use instead of drawn ones")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path(user_cache_dir("dealrec")) / "peers")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def prepared(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Draw the task into the folder; its settings, with the dampings that were found."""
    names = ("units", "held_out", "items", "games", "threads", "repeats", "seed")
    settings = {name: getattr(options, name) for name in names}
    settings |= {"games": options.games and str(Path(options.games).resolve())}
    settings |= {"epochs": 10, "tol": 1e-3, "rank": 50, "arnoldi_steps": 100}
    say(f"drawing {options.units} units and training the model ...")
    run(sys.executable, HERE / "prepare.py", folder, json.dumps(settings), threads=options.threads)
    settings_of_task: dict[str, Any] = json.loads((folder / "settings.json").read_text())
    return settings_of_task


def compared(peer: Peer, folder: Path, *, cache: Path, threads: int) -> dict[str, Any]:
    """Both timed, one right after the other, and their scores compared."""
    python = environment(peer, cache)
    stem = {"ours": folder / "ours", "theirs": folder / "theirs"}
    run(sys.executable, HERE / "run_dealrec.py", folder, peer.ours, stem["ours"], threads=threads)
    run(python, HERE / f"run_{peer.script}.py", folder, peer.method, stem["theirs"], threads=threads)
    scores = {who: torch.load(path.with_suffix(".pt")) for who, path in stem.items()}
    runs = {who: json.loads(path.with_suffix(".json").read_text()) for who, path in stem.items()}
    reference = torch.load(folder / f"reference-{peer.which}.pt")
    return {
        "ratio": runs["theirs"]["seconds"] / runs["ours"]["seconds"],
        "processor_ratio": runs["theirs"]["processor_seconds"] / runs["ours"]["processor_seconds"],
        "spearman": correlation(scores["theirs"], scores["ours"]),
        "largest_difference": float((scores["theirs"] - scores["ours"]).abs().max() / scores["ours"].abs().max()),
        "spearman_with_exact": {who: correlation(own_scores, reference) for who, own_scores in scores.items()},
        "theirs_run": runs["theirs"],
        "ours_run": runs["ours"],
    }


def environment(peer: Peer, cache: Path) -> Path:
    """The Python of an environment that holds the peer and this torch, made anew where its requirements changed."""
    requirements = f"torch=={TORCH}\n{peer.requirement}\n"
    folder = cache / peer.script
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    if not (stamp.exists() and stamp.read_text() == requirements and python.exists()):
        say(f"  installing {peer.requirement} into {folder} ...")
        run(sys.executable, "-m", "venv", "--clear", folder)
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements.split())
        stamp.write_text(requirements)
    return python


def run(*command: object, threads: int | None = None) -> None:
    """Run a command to its end; Failed with the last line that it wrote to stderr, where it fails."""
    limits = {} if threads is None else dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    process = subprocess.run(
        [str(word) for word in command], env={**os.environ, **limits}, capture_output=True, text=True
    )
    if process.returncode:
        lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
        raise Failed(lines[-1] if process.returncode > 0 else f"killed by signal {-process.returncode}: {lines[-1]}")


def correlation(left: torch.Tensor, right: torch.Tensor) -> float:
    """Spearman's."""
    return float(spearmanr(left.numpy(), right.numpy()).statistic)


def table(rows: list[dict[str, Any]], settings: dict[str, Any]) -> Table:
    """A line for each pair."""
    data = settings["games"] or "drawn sequences"
    title = (
        f"{settings['units']} units, {data}, {settings['threads']} threads, torch {TORCH}; ratio > 1: dealrec is ahead"
    )
    view = Table(title=title)
    for column in (
        "peer",
        "method",
        "dealrec",
        "peer s",
        "dealrec s",
        "ratio",
        "agreement",
        "exact: peer",
        "exact: dealrec",
        "note",
    ):
        view.add_column(column)
    for row in rows:
        if "error" in row:
            view.add_row(row["peer"], row["method"], row["ours"], *["-"] * 6, f"failed: {row['error']}")
            continue
        exact = row["spearman_with_exact"]
        numbers = (row["ratio"], row["spearman"], exact["theirs"], exact["ours"])
        seconds = (row["theirs_run"]["seconds"], row["ours_run"]["seconds"])
        name = f"{row['peer']} {row['theirs_run']['version']}"
        cells = [f"{seconds[0]:.2f}", f"{seconds[1]:.2f}", f"{numbers[0]:.2f}", *(f"{x:.4f}" for x in numbers[1:])]
        view.add_row(name, row["method"], row["ours"], *cells, row["note"])
    return view


def say(text: str) -> None:
    """Progress goes to stderr, so that the table alone is on stdout."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
