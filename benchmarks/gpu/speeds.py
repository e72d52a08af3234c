"""How fast each component is at a real size, and the memory that effort takes of what it was asked to keep to."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from benchmarks.gpu import made
from benchmarks.gpu.checks import Check, run_here
from dealrec.devices import compute_device, reproducible
from dealrec.effort import gradient_norms
from dealrec.effort.memory import batch_size_of, fit_peak, largest_batches, probes
from dealrec.engine.manifest import read_manifest
from dealrec.engine.measure import peak_memory_of
from dealrec.finetuning import train
from dealrec.recommenders.bigrec import generate
from dealrec.recommenders.bigrec.model import attach_lora, load_llm
from dealrec.recommenders.bigrec.prefix import read_prefix
from dealrec.sequences import IGNORED, Encoded, collate, plan_batches
from dealrec.stages.recommenders.training import mean_token_losses

MIB = 2**20
LONGEST = 30.0  # seconds that effort is to take at most: on a slow card of fewer samples


@dataclass(frozen=True)
class Size:
    """How much is measured. tokens: of a batch; matrix: rows of those whose product is the peak."""

    shape: str
    samples: int
    tokens: int
    prompts: int
    users: int
    matrix: int


SIZES = {
    "tiny": Size("tiny", samples=12, tokens=1024, prompts=2, users=60, matrix=256),
    "real": Size("real", samples=4096, tokens=8192, prompts=128, users=20_000, matrix=8192),
}


@dataclass(frozen=True)
class Speed:
    """A component: how long it took, how many of what a second, and its share of the matrix peak (None: not counted).

    operations: that are counted for a token, of the matrices alone: 2 a weight forward, 4 forward and backward, as
    frozen weights have no gradient. Attention, the output layer and the adapters are left out.
    """

    name: str
    seconds: float
    amount: float
    unit: str
    operations: float | None = None
    mib: float | None = None

    def row(self, peak: float) -> dict[str, Any]:
        """As a line of the table. peak: operations a second."""
        share = None if self.operations is None else self.operations * self.amount / self.seconds / peak
        rate = self.amount / self.seconds
        return {
            "component": self.name,
            "seconds": self.seconds,
            "a_second": rate,
            "unit": self.unit,
            "share_of_peak": share,
            "mib": self.mib,
        }


def matrix_peak(rows: int, dtype: torch.dtype, *, repeats: int = 5) -> float:
    """Operations a second of the product of two square matrices: the fastest of several."""
    device = compute_device()
    left, right = (torch.randn(rows, rows, device=device).to(dtype) for _ in range(2))
    fastest = min(timed(lambda: left @ right) for _ in range(repeats + 1))
    return float(2 * rows**3 / fastest)


def timed(work: Callable[[], Any]) -> float:
    """Wall seconds until the device is done with it."""
    wait()
    begun = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - begun


def wait() -> None:
    """Until the device has done all that it was given."""
    if compute_device().type == "cuda":
        torch.cuda.synchronize()


def measured(folder: Path, size: Size, model_folder: Path | None) -> Iterator[Speed | Check]:
    """The speeds one by one, and whether effort kept to the memory that it was given."""
    model, tokenizer = load_llm(str(model_folder or made.llm(folder / "real", size.shape)))
    weights = matrix_weights(model)
    model = attach_lora(model, r=8, alpha=16, dropout=0.05, target_modules=None, seed=0)
    samples = made.samples(size.samples, vocabulary=model.get_input_embeddings().weight.shape[0])
    pad = tokenizer.pad_token_id
    some = samples[: max(8, size.samples // 16)]
    gradient_norms(model, batches(some, size.tokens, pad))  # what later passes use again
    seconds = timed(lambda: gradient_norms(model, batches(some, size.tokens, pad)))
    samples = samples[: max(len(some), int(LONGEST * len(some) / seconds))]
    total = sum(len(sample.input_ids) for sample in samples)
    for name, deterministic in (("effort", True), ("effort, any algorithm", False)):
        yield effort(model, samples, size.tokens, pad, name, 4 * weights, deterministic=deterministic)
    scored: Any = SimpleNamespace(model=model.eval(), pad_id=pad)
    seconds = timed(lambda: mean_token_losses(scored, samples, batch_tokens=size.tokens))
    yield Speed("loss, its common prefix read once", seconds, total, "tokens", 2 * weights)
    prompts = [sample.input_ids[: sample.labels.count(IGNORED)] for sample in samples[: size.prompts]]
    yield generation(model, tokenizer, prompts)
    yield memory_kept(model, samples, pad)
    learnt = samples[: max(8, len(samples) // 4)]
    tokens = sum(len(sample.input_ids) for sample in learnt)
    with reproducible():
        seconds = timed(lambda: tuned(model, learnt, folder, pad))
    yield Speed("fine-tuning, as loss drop tunes twice", seconds, tokens, "tokens", 4 * weights)


def effort(
    model: Any, samples: Sequence[Encoded], tokens: int, pad: int, name: str, operations: float, *, deterministic: bool
) -> Speed:
    """Norms of all samples; deterministic: as the stages take them."""

    def work() -> None:
        gradient_norms(model, batches(samples, tokens, pad))

    peak, seconds = 0, 0.0

    def both() -> None:
        nonlocal seconds
        seconds = timed(work)

    if deterministic:
        with reproducible():
            peak = peak_memory_of(both, device=model.device)
    else:
        peak = peak_memory_of(both, device=model.device)
    total = sum(len(sample.input_ids) for sample in samples)
    return Speed(name, seconds, total, "tokens", operations, peak / MIB)


def generation(model: Any, tokenizer: Any, prompts: Sequence[list[int]], *, beams: int = 4, new: int = 24) -> Speed:
    """Titles by beam search, in batches of 32 prompts."""

    def work() -> None:
        prefix = read_prefix(model, prompts)
        for start in range(0, len(prompts), 32):
            rows = prompts[start : start + 32]
            generate(model, tokenizer, rows, beams=beams, max_new_tokens=new, prefix=prefix)

    return Speed(f"generation, {beams} beams of {new} tokens at most", timed(work), len(prompts), "titles")


def memory_kept(model: Any, samples: Sequence[Encoded], pad: int) -> Check:
    """Batches that are to take what eight of the longest sample take, chosen as effort.batch_memory has it, do so."""

    def peak(batch: Sequence[Encoded]) -> int:
        inputs = collate(batch, pad_id=pad, device=model.device)
        return peak_memory_of(lambda: gradient_norms(model, [inputs]), device=model.device)

    tried = probes(samples)
    peak(tried[0])
    memory = fit_peak([batch_size_of(batch) for batch in tried], [peak(batch) for batch in tried])
    single = memory.of(batch_size_of([max(samples, key=lambda sample: len(sample.input_ids))]))
    budget = memory.fixed + 8 * (single - memory.fixed)
    tokens, _ = largest_batches([samples], memory, budget=budget)
    largest = list(batches(samples, tokens, pad))[:2]
    taken = peak_memory_of(lambda: gradient_norms(model, largest), device=model.device)
    found = f"{taken / MIB:,.0f} of {budget / MIB:,.0f} MiB, batches of {tokens:,} tokens"
    return Check("effort keeps to effort.batch_memory", taken <= budget, found)


def tuned(model: Any, samples: Sequence[Encoded], folder: Path, pad: int) -> None:
    """One pass of fine-tuning."""
    scratch = folder / "scratch"
    options: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-4, "batch_size": 32, "micro_batch_size": 32, "seed": 0}
    train(model, samples, pad_id=pad, scratch=scratch, **options)


def surrogate(folder: Path, size: Size) -> Iterator[Speed]:
    """The surrogate's training and its influence, of a run of their own, as the stages took them."""
    folder = folder / "surrogate"
    folder.mkdir()
    made.interactions(folder, users=size.users, items=max(30, size.users // 4), longest=20)
    wide = {"dim": 64, "layers": 2, "max_epochs": 3, "batch_size": 256, "patience": 3}
    made.config(folder / "run", made.llm(folder / "tiny", "tiny"), surrogate=wide)
    run_dir = run_here(folder / "run", "influence")
    samples = pl.read_parquet(run_dir / "data" / "samples-train.parquet", columns=["sample_id"]).height
    for stage, passes in (("surrogate", 3), ("influence", 1)):
        manifest = read_manifest(run_dir / stage)
        assert manifest is not None
        mib = manifest.peak_memory_bytes / MIB
        yield Speed(stage, manifest.wall_seconds, passes * samples, "samples", None, mib)


def matrix_weights(model: nn.Module) -> int:
    """Numbers in the matrices that every token passes through, the output layer left out."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    matrices = (module for module in model.modules() if isinstance(module, nn.Linear | Conv1D) and module is not head)
    return sum(module.weight.numel() for module in matrices)


def batches(samples: Sequence[Encoded], tokens: int, pad: int) -> Iterable[dict[str, torch.Tensor]]:
    """Batches of samples alike in length, the longest first, each made when its turn comes."""
    device = compute_device()
    for batch in plan_batches([len(sample.input_ids) for sample in samples], batch_tokens=tokens):
        yield collate([samples[i] for i in batch], pad_id=pad, device=device)
