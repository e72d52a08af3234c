"""Beam generation of titles."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig


@torch.inference_mode()
def generate(model: Any, tokenizer: Any, rows: Sequence[list[int]], *, beams: int, max_new_tokens: int) -> list[str]:
    """The title that beam search finds for each prompt of one batch, without its quotes.

    rows: tokens of each prompt. The model's own sampling defaults are
    overridden. The prompts are read once, not once a beam: their keys and values are computed first, and
    repeated for the beams.
    """
    width = max(map(len, rows))
    pad = tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    cache = DynamicCache(config=model.config)
    if width > 1:  # the last token is left for generate, which needs one to go on from
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        model(
            input_ids=ids[:, :-1],
            attention_mask=mask[:, :-1],
            position_ids=positions[:, :-1],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache.batch_repeat_interleave(beams)
    settings = GenerationConfig(
        num_beams=beams,
        do_sample=False,
        max_new_tokens=max_new_tokens,
        early_stopping=beams > 1,
        pad_token_id=pad,
        eos_token_id=tokenizer.eos_token_id,
    )
    made = model.generate(input_ids=ids, attention_mask=mask, past_key_values=cache, generation_config=settings)
    return [title_of(tokenizer.decode(row[width:], skip_special_tokens=True)) for row in made]


def title_of(text: str) -> str:
    """The title in what the LLM wrote: the first line, without quotes around it.

    >>> title_of(' "Toy Story"' + chr(10) + 'It is a film')
    'Toy Story'
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = lines[0] if lines else ""
    if first.startswith('"') and '"' in first[1:]:
        return first[1 : first.index('"', 1)].strip()
    return first.strip('"').strip()
