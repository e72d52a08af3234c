"""What items are about: their titles as sentence embeddings."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dealrec.sequences.batches import plan_batches


@torch.inference_mode()
def embed_texts(
    model: Any, tokenizer: Any, texts: Sequence[str], *, batch_tokens: int = 8192, max_tokens: int = 256
) -> Tensor:
    """The mean of each text's last hidden states, scaled to length 1: [n, D], float32, on the CPU.

    So all-MiniLM-L6-v2 and its kin are pooled (Reimers and Gurevych, 2019). model: a transformers encoder, its
    tokenizer beside it. batch_tokens: tokens a forward pass, padding included. max_tokens: what is beyond is cut.
    """
    rows = [tokenizer.encode(text, truncation=True, max_length=max_tokens) for text in texts]
    rows = [row or [tokenizer.pad_token_id] for row in rows]  # an empty text still has a place
    found: Tensor | None = None
    for batch in plan_batches([len(row) for row in rows], batch_tokens=batch_tokens):
        lengths = torch.tensor([len(rows[i]) for i in batch])
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(rows[i]) for i in batch], batch_first=True, padding_value=tokenizer.pad_token_id
        ).to(model.device)
        mask = (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).long().to(model.device)
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state  # [B, T, D]
        pooled = (states * mask.unsqueeze(2)).sum(1) / mask.sum(1, keepdim=True)
        pooled = torch.nn.functional.normalize(pooled, dim=1).float().cpu()
        if found is None:
            found = torch.empty(len(rows), pooled.shape[1])
        found[batch] = pooled
    return torch.empty(0, 0) if found is None else found
