"""The model that all libraries score: a small SASRec and its loss, on torch alone, so that every environment has it.

Attention is composed of plain operations and nothing depends on the values of the data, so that the model works under
vmap, under forward mode and under hooks alike.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

LENGTH = 50
BLOCK = "layers.1."  # the parameters that the scores are about: those of the last block
LINEAR = [f"layers.1.{name}" for name in ("qkv", "out", "feed_in", "feed_out")]  # of them, those of linear layers


class SASRec(nn.Module):
    """Items and candidates -> logits. Padding is on the right, with 0."""

    def __init__(self, n_items: int, *, dim: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.item_embedding = nn.Embedding(n_items + 1, dim)
        self.position_embedding = nn.Embedding(LENGTH, dim)
        self.layers = nn.ModuleList(Block(dim) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        nn.init.normal_(self.item_embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding.weight, std=0.02)

    def forward(self, items: Tensor, candidates: Tensor) -> Tensor:
        """items [B, T], candidates [B, T, 2] (the next item and one that is not) -> logits [B, T, 2]."""
        length = items.shape[1]
        x = self.item_embedding(items) + self.position_embedding(torch.arange(length))
        hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
        for layer in self.layers:
            x = layer(x, hidden)
        logits: Tensor = (self.item_embedding(candidates) * self.norm(x).unsqueeze(2)).sum(3)
        return logits


class Block(nn.Module):
    """A pre-norm transformer layer with one head."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.feed_norm = nn.LayerNorm(dim)
        self.feed_in = nn.Linear(dim, dim)
        self.feed_out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """[B, T, D]; hidden [T, T], true where attention must not look -> [B, T, D]."""
        q, k, v = self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        logits = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        x = x + self.out(logits.masked_fill(hidden, float("-inf")).softmax(-1) @ v)
        fed: Tensor = self.feed_out(functional.gelu(self.feed_in(self.feed_norm(x))))
        return x + fed


def unit_losses(logits: Tensor, weights: Tensor) -> Tensor:
    """[B]: binary cross-entropy of the next item and of the negative, meaned over a unit's positions.

    logits [B, T, 2], weights [B, T], 0 at padding, rows sum to 1.
    """
    losses = functional.softplus(-logits[..., 0]) + functional.softplus(logits[..., 1])
    return (losses * weights).sum(-1)
