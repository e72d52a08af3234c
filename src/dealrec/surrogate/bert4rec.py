"""BERT4Rec: a bidirectional transformer that fills in hidden items (Sun et al., CIKM 2019)."""

import torch
from torch import Tensor, nn

from dealrec.surrogate.model import Surrogate
from dealrec.surrogate.sasrec import Block


class BERT4Rec(Surrogate):
    """Item indices [B, T], some of them hidden -> states [B, T, D]; a position's state scores the position's own item.

    Blocks are those of SASRec without the causal mask (normalised before, not after, as trains more steadily); the
    output goes through one more layer, as published, and scores are products with the input embedding.
    """

    cloze = True

    def __init__(
        self,
        n_items: int,
        *,
        dim: int = 64,
        layers: int = 2,
        heads: int = 1,
        max_length: int = 50,
        dropout: float = 0.2,
    ) -> None:
        if dim % heads:
            raise ValueError(f"heads ({heads}) must divide dim ({dim})")
        super().__init__(n_items, max_length=max_length)
        self.last_block = f"layers.{layers - 1}."
        self.item_embedding = nn.Embedding(n_items + 2, dim)
        self.position_embedding = nn.Embedding(max_length, dim)
        self.layers = nn.ModuleList(Block(dim, heads=heads, dropout=dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim))
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.item_embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding.weight, std=0.02)

    def forward(self, items: Tensor) -> Tensor:
        """[B, T] -> [B, T, D]; T at most max_length."""
        self.require_length(items)
        positions = torch.arange(items.shape[1], device=items.device)
        x = self.dropout(self.item_embedding(items) + self.position_embedding(positions))
        hidden = (items == 0)[:, None, None, :]  # padding, for every head and position
        for layer in self.layers:
            x = layer(x, hidden)
        states: Tensor = self.out(self.norm(x))
        return states

    def item_vectors(self) -> Tensor:
        """The input embedding, the hidden item's row last: [n_items + 2, D]."""
        return self.item_embedding.weight
