"""The LLM's loss on single samples."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from dealrec.sequences.caches import base_model, cache_keyword

IGNORED = -100  # label of a token that takes no part in the loss


def sequence_losses(model: nn.Module, batch: Mapping[str, Tensor], *, past: Any = None) -> Tensor:
    """Mean cross-entropy over each sample's own label tokens: [B], float32 (float64 where the model is).

    batch: input_ids and attention_mask [B, T], labels, padded on the right. Decoder-only: labels [B, T], the loss is
    taken after the causal shift. Encoder-decoder: labels [B, L], the decoder's targets; the model itself says what the
    decoder reads. A sample without a label token is a ValueError. Logits are computed only at columns that some
    sample's label needs, where the model can do so. past: keys and values, a transformers Cache of B rows, of P tokens
    that all samples start with and that no label needs: only the rest is read. For decoders alone.
    """
    base = base_model(model)
    if getattr(getattr(base, "config", None), "is_encoder_decoder", False):
        labels = batch["labels"]
        counts, columns = _label_counts(labels)
        logits = model(**_inputs(batch), **_decoder_inputs(base, labels)).logits[:, columns]
    else:
        labels = batch["labels"][:, 1:]  # token t is predicted from the tokens before it
        counts, columns = _label_counts(labels)
        inputs, start = _inputs(batch), 0
        if past is not None:
            start = past.get_seq_length()
            inputs |= {"input_ids": batch["input_ids"][:, start:], cache_keyword(model): past, "use_cache": True}
        if int(columns[0]) < start:
            raise ValueError(f"label {int(columns[0]) + 1} is predicted from within the {start} tokens of `past`")
        if "logits_to_keep" in signature(base.forward).parameters:
            logits = model(**inputs, logits_to_keep=columns - start).logits
        else:
            logits = model(**inputs).logits[:, columns - start]
    labels = labels[:, columns]  # [B, C]; logits [B, C, V]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return losses.view_as(labels).sum(1) / counts


def _label_counts(labels: Tensor) -> tuple[Tensor, Tensor]:
    """How many labels each sample has, [B], and the columns with any, [C]."""
    labelled = labels != IGNORED
    counts = labelled.sum(1)
    if bool((counts == 0).any()):
        rows = (counts == 0).nonzero().flatten().tolist()
        raise ValueError(f"samples {rows[:5]} of the batch have no label token")
    return counts, labelled.any(0).nonzero().flatten()


def _inputs(batch: Mapping[str, Tensor]) -> dict[str, Any]:
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "use_cache": False}


def _decoder_inputs(base: Any, labels: Tensor) -> dict[str, Tensor]:
    """The labels shifted right in the model's own way; given `labels`, a model does so while it computes a loss."""
    if hasattr(base, "prepare_decoder_input_ids_from_labels"):
        return {"decoder_input_ids": base.prepare_decoder_input_ids_from_labels(labels=labels)}
    return {"labels": labels}
