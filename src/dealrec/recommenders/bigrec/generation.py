"""Beam generation of titles."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from dealrec.recommenders.bigrec.prefix import Prefix, last_logits, new_cache
from dealrec.sequences import cache_keyword


@torch.inference_mode()
def generate(
    model: Any,
    tokenizer: Any,
    rows: Sequence[list[int]],
    *,
    beams: int,
    max_new_tokens: int,
    prefix: Prefix | None = None,
) -> list[str]:
    """The title that beam search finds for each prompt of one batch, without its quotes.

    rows: tokens of each prompt. prefix: of all of them, already read. The model's own sampling defaults are
    overridden. The prompts are read once, not once a beam: their keys and values are computed first, and
    repeated for the beams, where the model keeps such.
    """
    start = len(prefix) if prefix else 0
    width = max(map(len, rows))
    pad = tokenizer.pad_token_id
    ids = torch.tensor([row[:start] + [pad] * (width - len(row)) + row[start:] for row in rows], device=model.device)
    mask = torch.ones_like(ids)
    for place, row in enumerate(rows):
        mask[place, start : start + width - len(row)] = 0
    cache = prefix.repeat(len(rows)) if prefix else new_cache(model)
    if cache is not None:
        if width - start > 1:  # the last token is left for generate, which needs one to go on from
            positions = (mask.cumsum(1) - 1).clamp_min(0)
            model(
                input_ids=ids[:, start:-1],
                attention_mask=mask[:, :-1],
                position_ids=positions[:, start:-1],
                use_cache=True,
                **{cache_keyword(model): cache},
                **last_logits(model),
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
    past = {} if cache is None else {cache_keyword(model): cache}
    sequences = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings, **past)
    return [title_of(tokenizer.decode(row[width:], skip_special_tokens=True)) for row in sequences]


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
