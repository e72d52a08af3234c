"""Grounding: from written titles to the ids of items, by distance in the LLM's own embedding space."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from dealrec.effort.batching import Encoded, collate, plan_batches


@torch.inference_mode()
def embed(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    batch_tokens: int,
    watch: Callable[[list[list[int]]], Iterable[list[int]]] = iter,
) -> Tensor:
    """The LLM's last hidden state of each text's last token: [n, D], float32, on the CPU.

    model: the base LLM, without an adapter, so that all arms share one space. watch: shows progress.
    """
    encoded = []
    for text in texts:
        tokens = tokenizer.encode(text) or [tokenizer.eos_token_id]  # an empty text still has a place
        encoded.append(Encoded(tokens, tokens))
    found: Tensor | None = None
    for batch in watch(plan_batches([len(sample.input_ids) for sample in encoded], batch_tokens=batch_tokens)):
        inputs = collate([encoded[i] for i in batch], pad_id=tokenizer.pad_token_id, device=model.device)
        mask = inputs["attention_mask"]
        states = model.base_model(input_ids=inputs["input_ids"], attention_mask=mask, use_cache=False).last_hidden_state
        last = states[torch.arange(len(batch)), mask.sum(1) - 1].float().cpu()
        if found is None:
            found = torch.empty(len(texts), last.shape[1])
        found[batch] = last
    return torch.empty(0, 0) if found is None else found


def ground(
    queries: Tensor,
    items: Tensor,
    *,
    seen: Sequence[Sequence[int]],
    k: int,
    counts: Tensor | None = None,
    popularity_weight: float = 0.0,
    chunk: int = 64,
) -> list[list[int]]:
    """Rows of `items` [N, D] nearest to each query [U, D] by L2 distance: at most k each, nearest first.

    seen: for each query the rows that are left out. Ties go to the lower row. chunk: queries at a time, so
    that no more than chunk x N distances are held. counts: training interactions of each item [N]; with a
    popularity_weight g distances are scaled to [0, 1] for each query and divided by (1 + p)^g, p the counts scaled
    to [0, 1], as BIGRec (Bao et al., 2023) brings popularity in.
    """
    if len(queries) != len(seen):
        raise ValueError(f"{len(queries)} queries but {len(seen)} lists of seen items")
    squares = items.square().sum(1)
    ranked: list[list[int]] = []
    for start in range(0, len(queries), chunk):
        part = queries[start : start + chunk]
        distances = squares - 2 * part @ items.T  # the query's own square shifts all alike
        if popularity_weight:
            if counts is None:
                raise ValueError("popularity_weight needs the counts of the items")
            distances = (distances + part.square().sum(1, keepdim=True)).clamp_min(0).sqrt()
            distances = _scaled(distances) / (1 + _scaled(counts.to(distances))) ** popularity_weight
        for row, left_out in zip(distances, seen[start : start + chunk], strict=True):
            row[list(left_out)] = float("inf")
            order = row.argsort(stable=True)[: min(k, len(row) - len(set(left_out)))]
            ranked.append(order.tolist())
    return ranked


def _scaled(values: Tensor) -> Tensor:
    """Each row of [..., N] scaled to [0, 1]; zeros where all are equal."""
    low, high = values.aminmax(dim=-1, keepdim=True)
    return torch.where(high > low, (values - low) / (high - low), 0.0)
