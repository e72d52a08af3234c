"""The run's own fine-tuning settings in the names of the stacks."""

import math
import shutil
from pathlib import Path
from typing import Any

import yaml

from dealrec.devices import compute_device, resolved_dtype
from dealrec.exporting.handover import Handover
from dealrec.recommenders.files import ADAPTER_CONFIG, read_json

TRAINED = "trained"  # folder for what the stack trains
ADAPTER, MODEL = "adapter", "model"  # copies of what fine-tuning starts from


def write_yaml(path: Path, settings: dict[str, Any], *, comment: str) -> None:
    """Settings without those that are None, under a comment."""
    content = yaml.safe_dump(
        {name: value for name, value in settings.items() if value is not None}, sort_keys=False, allow_unicode=True
    )
    path.write_text("".join(f"# {line}\n" for line in comment.splitlines()) + content, encoding="utf-8")


def trainer_settings(handover: Handover) -> dict[str, Any]:
    """As the Trainer of transformers names them, which TRL and LLaMA-Factory extend."""
    settings = handover.config.finetune
    return {
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": settings.micro_batch_size,
        "lr_scheduler_type": "linear",
        **common_settings(handover),
        "report_to": settings.report_to,
    }


def common_settings(handover: Handover) -> dict[str, Any]:
    """What all stacks call alike."""
    settings = handover.config.finetune
    return {
        "output_dir": TRAINED,
        "gradient_accumulation_steps": settings.batch_size // (settings.micro_batch_size * settings.processes),
        "learning_rate": settings.learning_rate,
        "warmup_steps": warmup_steps(handover),
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": takes_bf16() and weights_dtype(handover) == "bfloat16",
        "seed": handover.config.seed,
        "logging_steps": 1,
        **saving(handover),
    }


def saving(handover: Handover) -> dict[str, Any]:
    """When checkpoints are kept."""
    every = handover.config.finetune.checkpoint_every
    if isinstance(every, int):
        return {"save_strategy": "steps", "save_steps": every}
    return {"save_strategy": every or "no"}


def warmup_steps(handover: Handover) -> int:
    """Optimiser steps over which the learning rate rises: as a count, which every version of every stack takes."""
    settings = handover.config.finetune
    steps = settings.epochs * math.ceil(len(handover.samples) / settings.batch_size)
    return math.ceil(settings.warmup_share * steps)


def takes_bf16() -> bool:
    """Whether the GPU here has bfloat16."""
    import torch

    return resolved_dtype("auto", compute_device()) == torch.bfloat16


def weights_dtype(handover: Handover) -> str:
    """Type of the LLM's weights; those that learn are float32."""
    dtype = handover.config.llm.dtype
    auto = "bfloat16" if takes_bf16() and trains_adapter(handover) else "float32"
    return auto if dtype == "auto" else dtype


def copy_start(handover: Handover, folder: Path) -> tuple[str, str | None]:
    """Copy what fine-tuning starts from; the model to name, and the adapter to go on from.

    A whole model that the warm start has trained gets the LLM's tokenizer beside it.
    """
    llm = handover.config.llm.model
    if handover.start is None:
        return llm, None
    if (handover.start / ADAPTER_CONFIG).exists():
        shutil.copytree(handover.start, folder / ADAPTER)
        return llm, ADAPTER
    shutil.copytree(handover.start, folder / MODEL)
    handover.tokenizer.save_pretrained(folder / MODEL)
    return MODEL, None


def lora_targets(handover: Handover) -> list[str]:
    """The layers that are adapted: as the settings say, as those of the adapter that is gone on from, or the usual."""
    from dealrec.recommenders.bigrec.model import usual_targets_of

    llm = handover.config.llm
    if llm.lora.target_modules is not None:
        return llm.lora.target_modules
    if handover.start is not None and (handover.start / ADAPTER_CONFIG).exists():
        adapted = read_json(handover.start / ADAPTER_CONFIG).get("target_modules")
        if isinstance(adapted, list):  # else a pattern, which no other stack knows
            return adapted
    return usual_targets_of(llm.model, revision=llm.revision)


def note_what_differs(handover: Handover, stack: str) -> None:
    """Say in which ways the stack's training is not our own, whatever tokens it reads."""
    handover.notes.append(
        f"{stack} minimises the mean over the tokens of a batch, dealrec over its samples: long titles weigh more there"
    )
    if handover.config.finetune.patience is not None:
        handover.notes.append(
            f"finetune.patience is not handed over: {stack} trains all {handover.config.finetune.epochs} epochs"
        )


def trains_adapter(handover: Handover) -> bool:
    """Whether an adapter is trained, and not the whole model."""
    return not handover.config.finetune.full
