"""A decoder-only model as the beam search over semantic ids takes it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dealrec.recommenders.bigrec.prefix import new_cache
from dealrec.sequences import cache_keyword


class CausalDecoder:
    """Has read the prompts of B users but for their last tokens; keys and values are kept where the model does so."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], *, pad_id: int) -> None:
        """prompts: tokens of each user, one at least. `start` is then their last, [B, 1]."""
        self.model = model
        width = max(map(len, prompts))
        padded = [[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        ids = torch.tensor(padded, device=model.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
        self.start, self.ids, self.mask = ids[:, -1:], ids[:, :-1], mask[:, :-1]
        self.cache, self.cache_keyword = new_cache(model), cache_keyword(model)
        if self.cache is not None and width > 1:
            self._read(self.ids)

    def step(self, tokens: Tensor) -> Tensor:
        """Log-probabilities of the token after `tokens` [B, W]: [B, W, V]."""
        users, width = tokens.shape
        rows = tokens.reshape(-1, 1)
        self.ids = torch.cat([self.ids, rows], 1)
        self.mask = torch.cat([self.mask, torch.ones_like(rows)], 1)
        logits = self._read(rows if self.cache is not None else self.ids)
        return logits[:, -1].float().log_softmax(1).view(users, width, -1)

    def follow(self, beams: Tensor) -> None:
        """Go on with the beams [B, W] of the last step."""
        users = len(beams)
        width = len(self.mask) // users
        rows = (torch.arange(users, device=beams.device).unsqueeze(1) * width + beams).flatten()
        if self.cache is not None:
            self.cache.batch_select_indices(rows)
        self.mask, self.ids = self.mask[rows], self.ids[rows]

    def _read(self, ids: Tensor) -> Tensor:
        positions = (self.mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        options = {} if self.cache is None else {self.cache_keyword: self.cache, "use_cache": True}
        logits: Tensor = self.model(input_ids=ids, attention_mask=self.mask, position_ids=positions, **options).logits
        return logits
