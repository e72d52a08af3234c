"""Which of the Trainer's checkpoints a training may go on from.

The Trainer writes a checkpoint in place, so a killed one leaves a folder that looks like any other. Here a
checkpoint counts only once it carries a marker, which is written last and holds the fingerprint of its training.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from dealrec.sequences.batches import Encoded

_MARKER = "complete"
_PREFIX = "checkpoint-"  # then the optimiser step, as the Trainer names them


def fingerprint(model: nn.Module, samples: Sequence[Sequence[Encoded]], settings: Mapping[str, Any]) -> str:
    """SHA-256 over what a training starts from: settings, sets of samples, and the learnable parameters' values.

    Parameters that do not require grad are not read: `scratch` belongs to one base model.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for part in samples:
        digest.update(json.dumps([[sample.input_ids, sample.labels] for sample in part]).encode())
    for name, value in model.named_parameters():
        if value.requires_grad:
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def newest(scratch: Path, digest: str) -> Path | None:
    """The complete checkpoint of most steps that belongs to the training with this fingerprint."""
    return max((path for path in _checkpoints(scratch) if _belongs(path, digest)), key=_step, default=None)


def discard_others(scratch: Path, digest: str) -> None:
    """Remove checkpoints that are incomplete or another training's, lest the Trainer counts them as its own."""
    for path in _checkpoints(scratch):
        if not _belongs(path, digest):
            shutil.rmtree(path)


class MarkComplete(TrainerCallback):
    """Marks each checkpoint once every process has written its part; wait: returns when all have called it."""

    def __init__(self, scratch: Path, digest: str, *, wait: Callable[[], None]) -> None:
        self.scratch = scratch
        self.digest = digest
        self.wait = wait

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Write the marker."""
        self.wait()
        if state.is_world_process_zero:
            (self.scratch / f"{_PREFIX}{state.global_step}" / _MARKER).write_text(self.digest)


def _checkpoints(scratch: Path) -> Iterator[Path]:
    return (path for path in scratch.glob(f"{_PREFIX}*") if path.is_dir() and path.name[len(_PREFIX) :].isdigit())


def _belongs(path: Path, digest: str) -> bool:
    marker = path / _MARKER
    return marker.is_file() and marker.read_text() == digest


def _step(path: Path) -> int:
    return int(path.name[len(_PREFIX) :])
