"""The LLM's loss on single samples."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

IGNORED = -100  # label of a token that takes no part in the loss


def sequence_losses(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross-entropy over each sample's own label tokens, after the causal shift: [B], float32.

    batch: input_ids, attention_mask, labels, each [B, T], padded on the right. A sample without a label
    token is a ValueError. Logits are computed only at columns that some sample's label needs.
    """
    labels = batch["labels"][:, 1:]  # token t is predicted from the tokens before it
    counts = (labels != IGNORED).sum(1)
    if bool((counts == 0).any()):
        where = (counts == 0).nonzero().flatten().tolist()
        raise ValueError(f"samples {where[:5]} of the batch have no label token")
    columns = (labels != IGNORED).any(0).nonzero().flatten()
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    if _takes_columns(model):
        logits = model(**inputs, use_cache=False, logits_to_keep=columns).logits
    else:
        logits = model(**inputs, use_cache=False).logits[:, columns]
    labels = labels[:, columns]  # [B, C]; logits [B, C, V]
    losses = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return losses.view_as(labels).sum(1) / counts


def _takes_columns(model: nn.Module) -> bool:
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return "logits_to_keep" in signature(base.forward).parameters
