"""The LLM's loss on single samples."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

IGNORED = -100  # label of a token that takes no part in the loss


def sequence_losses(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross-entropy over each sample's own label tokens: [B], float32 (float64 where the model is).

    batch: input_ids and attention_mask [B, T], labels, padded on the right. Decoder-only: labels [B, T], the loss is
    taken after the causal shift. Encoder-decoder: labels [B, L], the decoder's targets; the model itself says what the
    decoder reads. A sample without a label token is a ValueError. Logits are computed only at columns that some
    sample's label needs, where the model can do so.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    if _is_encoder_decoder(base):
        labels = batch["labels"]
        counts, columns = _labelled(labels)
        logits = model(**_inputs(batch), **_decoder_inputs(base, labels), use_cache=False).logits[:, columns]
    else:
        labels = batch["labels"][:, 1:]  # token t is predicted from the tokens before it
        counts, columns = _labelled(labels)
        if "logits_to_keep" in signature(base.forward).parameters:
            logits = model(**_inputs(batch), use_cache=False, logits_to_keep=columns).logits
        else:
            logits = model(**_inputs(batch), use_cache=False).logits[:, columns]
    labels = labels[:, columns]  # [B, C]; logits [B, C, V]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return losses.view_as(labels).sum(1) / counts


def _labelled(labels: Tensor) -> tuple[Tensor, Tensor]:
    """How many labels each sample has, [B], and the columns with any, [C]."""
    there = labels != IGNORED
    counts = there.sum(1)
    if bool((counts == 0).any()):
        where = (counts == 0).nonzero().flatten().tolist()
        raise ValueError(f"samples {where[:5]} of the batch have no label token")
    return counts, there.any(0).nonzero().flatten()


def _inputs(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}


def _is_encoder_decoder(base: Any) -> bool:
    return bool(getattr(getattr(base, "config", None), "is_encoder_decoder", False))


def _decoder_inputs(base: Any, labels: Tensor) -> dict[str, Tensor]:
    """The labels shifted right in the model's own way; given `labels`, a model does so while it computes a loss."""
    if hasattr(base, "prepare_decoder_input_ids_from_labels"):
        return {"decoder_input_ids": base.prepare_decoder_input_ids_from_labels(labels=labels)}
    return {"labels": labels}
