"""Whether a CUDA machine computes what the CPU does, and how fast each component is on it.

    make gpu [MODEL=/models/my-llm] [OUT=gpu.json]

Checked: scores on the GPU against those on the CPU, in float32 and bfloat16; that a second run leaves the same bytes;
that effort keeps to the memory it is given; two ranks, where there are two cards. Measured: effort, with the algorithms
that stages ask for and without, loss, fine-tuning, generation, surrogate and influence; the share of the card's peak,
which is that of the product of two large matrices here. A random LLM of the shape of SmolLM2-135M is made, unless
MODEL names one. Nothing is fetched. It prints tables in Markdown and writes JSON; what no longer fits into --minutes is
left out, and said. The exit status is 1 where a check failed, 2 without a GPU.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

NO_GPU = "make gpu: torch {version} sees no CUDA GPU on this machine, so nothing was measured"
RUN_SECONDS = 150.0  # for one whole run of a tiny model


def main(arguments: list[str] | None = None) -> int:
    """Check, measure and tell; the exit status."""
    options = parser().parse_args(arguments)
    if options.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print(NO_GPU.format(version=torch.__version__), file=sys.stderr)
        return 2
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as stages have it, which begin with it
    with tempfile.TemporaryDirectory() as folder:
        result = measured(Path(folder), options)
    print(tables(result))
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if any(check["held"] is False for check in result["checks"]) else 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--model", type=Path, help="an LLM's folder in Hugging Face format")
    made.add_argument("--out", type=Path, default=Path("gpu.json"))
    made.add_argument("--minutes", type=float, default=8.0, help="after which nothing further is begun")
    made.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try this script")
    made.add_argument("--size", choices=("real", "tiny"), default="real")
    made.add_argument("--ranks", type=int, help="cards that there are taken to be")
    return made


def measured(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All that is found, for JSON."""
    import torch
    import transformers

    from benchmarks.gpu import checks, speeds
    from dealrec.devices import compute_device, resolved_dtype

    begun, device, size = time.perf_counter(), compute_device(), speeds.SIZES[options.size]
    dtype = resolved_dtype("auto", device)
    cards = options.ranks if options.ranks is not None else torch.cuda.device_count()
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cards": cards,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "dtype": str(dtype).removeprefix("torch."),
        "model": str(options.model) if options.model else f"made, {options.size}",
        "matrix_peak": speeds.matrix_peak(size.matrix, dtype),
        "checks": [],
        "speeds": [],
        "left_out": [],
    }
    pieces: list[tuple[str, Callable[[], Iterable[Any]]]] = [
        ("components of the LLM", lambda: speeds.measured(folder, size, options.model)),
        ("agreement of whole runs", lambda: checks.agreements(folder, cards=cards, seconds=RUN_SECONDS)),
        ("surrogate", lambda: speeds.surrogate(folder, size)),
    ]
    for found in in_time(pieces, seconds=options.minutes * 60, left_out=result["left_out"]):
        if isinstance(found, checks.Check):
            result["checks"].append(asdict(found))
        else:
            result["speeds"].append(found.row(result["matrix_peak"]))
    return {**result, "seconds": time.perf_counter() - begun}


def in_time(
    pieces: Iterable[tuple[str, Callable[[], Iterable[Any]]]], *, seconds: float, left_out: list[str]
) -> Iterator[Any]:
    """What the pieces come to, each begun, and gone on with, only before the time is over; the others' names go out."""
    from benchmarks.gpu.checks import Check

    begun = time.perf_counter()
    for name, piece in pieces:
        if time.perf_counter() - begun > seconds:
            left_out.append(name)
            continue
        try:
            for found in piece():
                yield found
                if time.perf_counter() - begun > seconds:
                    left_out.append(f"the rest of: {name}")
                    break
        except Exception as error:  # the others are worth having all the same
            said = getattr(error, "stderr", None) or str(error)  # of a process; bytes, where its time was over
            last = (said.decode(errors="replace") if isinstance(said, bytes) else said).strip().splitlines()[-1:]
            yield Check(name, False, ": ".join([type(error).__name__, *last]))


def tables(result: dict[str, Any]) -> str:
    """Markdown."""
    cards = "card" if result["cards"] == 1 else "cards"
    machine = f"{result['device']} ({result['cards']} {cards}), {result['dtype']}, LLM: {result['model']}"
    versions = f"torch {result['torch']}, transformers {result['transformers']}"
    peak = f"{result['matrix_peak'] / 1e12:,.2f} TFLOP/s is the matrix peak; {result['seconds']:,.0f} s in all"
    lines = [
        f"{machine}; {versions}; {peak}.",
        "",
        "| check | held | found |",
        "|---|---|---|",
    ]
    words = {True: "yes", False: "**no**", None: "not tried"}
    lines += [f"| {check['name']} | {words[check['held']]} | {check['found']} |" for check in result["checks"]]
    lines += ["", "| component | seconds | a second | of the peak | MiB |", "|---|---|---|---|---|"]
    for row in result["speeds"]:
        share = "" if row["share_of_peak"] is None else f"{row['share_of_peak']:.1%}"
        mib = "" if row["mib"] is None else f"{row['mib']:,.0f}"
        rate = (
            f"{row['a_second']:,.0f} {row['unit']}" if row["a_second"] >= 10 else f"{row['a_second']:.2g} {row['unit']}"
        )
        lines.append(f"| {row['component']} | {row['seconds']:.1f} | {rate} | {share} | {mib} |")
    if result["left_out"]:
        lines += ["", f"Left out, as the time was over: {', '.join(result['left_out'])}."]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
