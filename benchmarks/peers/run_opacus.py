"""Opacus' per-sample norms by ghost clipping. Usage: run_opacus.py MODEL TASK RESULT_STEM REPEATS

Its norms come with the backward pass that it runs before it weighs the samples; that pass alone is timed, not the
second one that clipping needs. The task holds the batches and the adapter's weights.
"""

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping  # type: ignore[import-not-found]
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM


def main() -> None:
    """Score all batches, write norms and seconds of the fastest repeat."""
    folder, task, stem, repeats = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    work = torch.load(task, weights_only=True)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=8, target_modules=["q_proj", "v_proj"]))
    model.load_state_dict(work["adapter"], strict=False)
    # It asks for train mode; there is no dropout here.
    wrapped = GradSampleModuleFastGradientClipping(
        model.train(), batch_first=True, loss_reduction="sum", max_grad_norm=1.0, use_ghost_clipping=True, strict=False
    )
    runs = [timed(wrapped, work["batches"]) for _ in range(repeats)]
    facts = {
        "version": version("opacus"),
        "torch": torch.__version__,
        "seconds": min(wall for wall, _, _ in runs),
        "processor_seconds": min(processor for _, processor, _ in runs),
    }
    torch.save(runs[-1][2], stem.with_suffix(".pt"))
    stem.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n")


def timed(model: Any, batches: list[dict[str, Tensor]]) -> tuple[float, float, Tensor]:
    """Wall and processor seconds, and the norms."""
    wall, processor = time.perf_counter(), time.process_time()
    norms = torch.cat([batch_norms(model, batch) for batch in batches])
    return time.perf_counter() - wall, time.process_time() - processor, norms


def batch_norms(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Norms [B] after a backward pass of the sum of the samples' mean losses."""
    labels = batch["labels"][:, 1:]
    columns = (labels >= 0).any(0).nonzero().flatten()
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    logits = model(**inputs, use_cache=False, logits_to_keep=columns).logits
    labels = labels[:, columns]
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    (losses.view_as(labels).sum(1) / (labels >= 0).sum(1)).sum().backward()
    norms: Tensor = model.get_norm_sample().detach().clone()
    model.zero_grad()
    return norms


if __name__ == "__main__":
    main()
