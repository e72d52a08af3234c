"""The tokens that all prompts start with, read once.

Their keys and values depend on the model alone, so that they serve every batch, for losses and for generation; never
for gradient norms, whose gradients flow through them.
"""

import copy
from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from peft import PeftModel
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from dealrec.sequences import base_model, cache_keyword

SHORTEST = 8  # tokens; less is not worth a pass of its own


class Prefix:
    """Keys and values of `tokens`, as the model is now: of no use once its parameters change."""

    def __init__(self, tokens: list[int], cache: Cache) -> None:
        self.tokens, self._cache = tokens, cache

    def __len__(self) -> int:
        return len(self.tokens)

    def repeat(self, samples: int) -> Cache:
        """A copy for a batch, which the model may go on from."""
        cache = copy.copy(self._cache)
        cache.layers = [copy.copy(layer) for layer in self._cache.layers]  # a layer that grows replaces its tensors
        cache.batch_repeat_interleave(samples)
        return cache


@torch.no_grad()
def read_prefix(model: Any, prompts: Sequence[Sequence[int]], *, shortest: int = SHORTEST) -> Prefix | None:
    """The longest prefix of all prompts that leaves each a token, read once; None where that cannot be or is no gain.

    It cannot be for models whose layers do not all keep plain keys and values (a sliding window, a state), that are not
    told positions, and for encoder-decoders: positions of what follows are told apart from its places, as padding
    comes between. The model is in eval mode.
    """
    length = common_length(prompts)
    cache = new_cache(model)
    if length < shortest or cache is None or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    tokens = list(prompts[0][:length])
    ids = torch.tensor([tokens], device=model.device)
    model(input_ids=ids, use_cache=True, **{cache_keyword(model): cache}, **last_logits(model))
    # A model that keeps its states elsewhere leaves the layers as they were.
    lengths = {cache.get_seq_length(place) for place in range(len(cache))}
    return Prefix(tokens, cache) if lengths == {length} else None


def new_cache(model: Any) -> DynamicCache | None:
    """An empty one for keys and values; None for a model that cannot go on from one at positions that it is told."""
    base = base_model(model)
    if base.config.is_encoder_decoder or (isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning):
        return None
    if not {cache_keyword(model), "position_ids"} <= set(signature(base.forward).parameters):
        return None
    cache = DynamicCache(config=base.config)
    plain = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)
    return cache if cache.layers and plain else None


def last_logits(model: Any) -> dict[str, int]:
    """Keywords by which a model computes no more logits than it must."""
    return {"logits_to_keep": 1} if "logits_to_keep" in signature(base_model(model).forward).parameters else {}


def common_length(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts share at their start, one of each prompt left out.

    >>> common_length([[1, 2, 3], [1, 2, 4, 5]]), common_length([[1, 2], [1, 2, 3]]), common_length([])
    (2, 1, 0)
    """
    if not prompts:
        return 0
    first, last = min(map(list, prompts)), max(map(list, prompts))  # what these two share lies between all
    limit = max(0, min(map(len, prompts)) - 1)
    return next((place for place in range(limit) if first[place] != last[place]), limit)
