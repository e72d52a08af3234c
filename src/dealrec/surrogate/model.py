"""What a surrogate is: item sequences in, a state per position out, and a vector per item to compare it with."""

import re

import torch
from torch import Tensor, nn


class Surrogate(nn.Module):
    """Base of all surrogates; a module of your own becomes one by these two methods.

    forward: item indices [B, T], padded on the right with 0 -> states [B, T, D]. The state of a position scores the
    item that comes next: its product with an item's vector is the item's score. Padding must change no state of a
    real position. Attention must be composed of plain operations (in transformers: attn_implementation="eager"),
    since influence needs forward-mode derivatives, which fused kernels lack.

    item_vectors: [n_items + 1, D], or with more rows; row i belongs to item index i, row 0 to the padding.

    last_block: prefix of the parameters that `last-block` in the settings stands for; empty: all parameters.
    cloze: the state of a position scores the item of that position, hidden by the index n_items + 1, instead of the
    next one; `item_vectors` and the embedding then have a row for that index too.
    """

    last_block = ""
    cloze = False

    def __init__(self, n_items: int, *, max_length: int) -> None:
        super().__init__()
        self.n_items, self.max_length = n_items, max_length

    def forward(self, items: Tensor) -> Tensor:
        """[B, T] -> [B, T, D]."""
        raise NotImplementedError

    def item_vectors(self) -> Tensor:
        """[n_items + 1, D]."""
        raise NotImplementedError

    def require_length(self, items: Tensor) -> None:
        """Raise ValueError if the sequences are longer than the model's positions."""
        if items.shape[1] > self.max_length:
            raise ValueError(f"a sequence of {items.shape[1]} items is longer than max_length {self.max_length}")

    @property
    def hidden_item(self) -> int | None:
        """The index that hides an item; None for a surrogate that is no cloze."""
        return self.n_items + 1 if self.cloze else None

    def parameter_globs(self, globs: list[str]) -> list[str]:
        """Globs over parameter names, with `last-block` and `last-block.NAME` spelt out."""
        patterns = [f"{glob}.*" if glob == "last-block" else glob for glob in globs]
        return [re.sub(r"^last-block\.", self.last_block, glob) for glob in patterns]

    def next_states(self, items: Tensor, lengths: Tensor) -> Tensor:
        """The states that score the item after each sequence: [B, T], lengths [B] -> [B, D]."""
        rows = torch.arange(len(items), device=items.device)
        states: Tensor
        if not self.cloze:
            states = self(items)
            return states[rows, lengths - 1]
        # One place more, for the hidden item; where that is beyond max_length the oldest item makes room.
        open_ended = torch.nn.functional.pad(items, (0, 1))
        open_ended[rows, lengths] = self.n_items + 1
        if (excess := open_ended.shape[1] - self.max_length) > 0:
            shift = (lengths + 1 - self.max_length).clamp_min(0)
            columns = torch.arange(self.max_length, device=items.device) + shift.unsqueeze(1)
            open_ended = open_ended.gather(1, columns.clamp_max(self.max_length + excess - 1))
            lengths = lengths - shift
        states = self(open_ended)
        return states[rows, lengths]

    def scores(self, states: Tensor) -> Tensor:
        """States [B, D] -> a score for every item [B, n_items]; column j is item index j + 1."""
        scores: Tensor = states @ self.item_vectors()[1 : self.n_items + 1].T
        return scores
