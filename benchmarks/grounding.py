"""Grounding in a catalogue that is read in blocks: memory at a million items, and time against all items at once.

    python benchmarks/grounding.py [--items 1000000] [--width 576] [--queries 64] [--fits 50000] [--out grounding.json]

Random embeddings, a tenth of them doubles of others, lie on disk in blocks as the evaluate stage writes them (2.3 GB
at the defaults). A process that does nothing else ranks them, without and with popularity (which goes through them
twice), and tells its own peak: VmHWM, which counts pages of files too. Then, on --fits items, blocks take turns with
all items at once: the products in float64 and a sort of every distance. Both must rank alike. Ratios of processor
time are given beside those of wall time: other programs on the machine disturb them less.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dealrec.recommenders.bigrec.files import Blocks, write_blocks
from dealrec.recommenders.bigrec.grounding import ground

LIMIT, SEEN, K = 2_000_000_000, 100, 10
WEIGHTS = (0.0, 0.5)


def main() -> None:
    """Measure both and show them."""
    options = arguments()
    torch.set_num_threads(options.threads)
    if options.measure:
        print(json.dumps(alone(options)))
        return
    sizes = {name: getattr(options, name) for name in ("items", "width", "queries", "fits", "threads")}
    result: dict[str, Any] = {**sizes, "torch": torch.__version__, "machine": platform.machine(), "limit": LIMIT}
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        write_blocks(Path(scratch) / "items", lambda rows: drawn(rows, options.width), items=options.items)
        command = [sys.executable, __file__, "--measure", scratch, "--items", str(options.items)]
        command += ["--queries", str(options.queries), "--width", str(options.width)]
        process = subprocess.run(
            [*command, "--threads", str(options.threads)], check=True, capture_output=True, text=True
        )
        result["memory"] = json.loads(process.stdout)
    result["time"] = [in_turns(options, weight) for weight in WEIGHTS]
    show(result)
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=576, help="numbers of an embedding; SmolLM2-135M has 576")
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--fits", type=int, default=50_000, help="items of the comparison with all at once")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scratch", type=Path, help="where the blocks are written for the while")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def drawn(rows: list[int], width: int) -> Tensor:
    """Embeddings of a block; a row that ends in 0 is the double of the block's first."""
    embeddings = torch.randn(len(rows), width, generator=torch.Generator().manual_seed(rows[0]))
    embeddings[[place for place, row in enumerate(rows) if row % 10 == 0]] = embeddings[0].clone()
    return embeddings


def queries_and_seen(options: argparse.Namespace, items: int) -> tuple[Tensor, list[list[int]], Tensor]:
    """Queries [U, D], rows that are left out, and counts [N]."""
    generator = torch.Generator().manual_seed(1)
    queries = torch.randn(options.queries, options.width, generator=generator)
    seen = torch.randint(items, (options.queries, SEEN), generator=generator).tolist()
    return queries, seen, torch.randint(1000, (items,), generator=generator)


def alone(options: argparse.Namespace) -> dict[str, Any]:
    """What this process needs for grounding in the blocks of a folder."""
    blocks = Blocks(sorted((options.measure / "items").iterdir()))
    queries, seen, counts = queries_and_seen(options, options.items)
    rows, before = [], peak()
    for weight in WEIGHTS:

        def work(weight: float = weight) -> list[list[int]]:
            return ground(queries, blocks, seen=seen, k=K, counts=counts, popularity_weight=weight)

        _, wall, processor = timed(work)
        rows.append({"popularity_weight": weight, "wall": wall, "processor": processor, "peak": peak()})
    return {"before": before, "rows": rows}


def peak() -> int:
    """VmHWM: the most resident memory so far, bytes, pages of files included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def in_turns(options: argparse.Namespace, weight: float) -> dict[str, Any]:
    """Blocks against all at once."""
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        blocks = write_blocks(Path(scratch) / "items", lambda rows: drawn(rows, options.width), items=options.fits)
        items = torch.cat(list(blocks))
        queries, seen, counts = queries_and_seen(options, options.fits)
        ours, theirs = [], []
        for _ in range(options.repeats):
            ours.append(timed(lambda: ground(queries, blocks, seen=seen, k=K, counts=counts, popularity_weight=weight)))
            theirs.append(timed(lambda: all_at_once(queries, items, seen, counts, weight)))
    if ours[-1][0] != theirs[-1][0]:
        raise SystemExit("blocks and all at once rank differently")
    ratios = {
        name: min(run[place] for run in ours) / min(run[place] for run in theirs)
        for place, name in ((1, "wall"), (2, "processor"))
    }
    return {"popularity_weight": weight, **ratios, "seconds": min(run[1] for run in ours)}


def all_at_once(
    queries: Tensor, items: Tensor, seen: list[list[int]], counts: Tensor, weight: float
) -> list[list[int]]:
    """All distances of all queries, in float64, and a stable sort; equal items are given equal distances."""
    wide, numbers = queries.double(), items.double()
    distances = numbers.square().sum(1) - 2 * wide @ numbers.T + wide.square().sum(1, keepdim=True)
    if weight:
        distances = distances.clamp_min(0).sqrt()
        low, high = distances.aminmax(dim=1, keepdim=True)
        popularity = (counts - counts.min()) / (counts.max() - counts.min())
        distances = (distances - low) / (high - low) / (1 + popularity.double()) ** weight
    distances = distances.float()  # without the last bits, in which the product tells equal items apart
    for row, left_out in zip(distances, seen, strict=True):
        row[left_out] = torch.inf
    return [row.argsort(stable=True)[:K].tolist() for row in distances]


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it gave, wall and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - processor


def show(result: dict[str, Any]) -> None:
    """Two tables."""
    console = Console(width=120)
    memory = Table("popularity", "peak (VmHWM)", "before", "of 2 GB", "seconds", title=f"{result['items']:,} items")
    for row in result["memory"]["rows"]:
        gigabytes, before = row["peak"] / 1e9, result["memory"]["before"] / 1e9
        share = f"{row['peak'] / LIMIT:.0%}"
        memory.add_row(
            f"{row['popularity_weight']:g}", f"{gigabytes:.2f} GB", f"{before:.2f} GB", share, f"{row['wall']:.1f}"
        )
    console.print(memory)
    speed = Table("popularity", "wall", "processor", title=f"time by that of all at once, {result['fits']:,} items")
    for row in result["time"]:
        speed.add_row(f"{row['popularity_weight']:g}", f"{row['wall']:.2f}", f"{row['processor']:.2f}")
    console.print(speed)


if __name__ == "__main__":
    main()
