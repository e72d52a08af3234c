"""SASRec: self-attentive sequential recommendation (Kang and McAuley, ICDM 2018)."""

import torch
from torch import Tensor, nn

from dealrec.surrogate.model import Surrogate


class SASRec(Surrogate):
    """Item indices [B, T] -> hidden states [B, T, D]; a position's state predicts the next item.

    Sequences are padded on the right with 0. Attention is causal and positions count from the start, so
    padding and later items change nothing, and a prefix has the same states alone as within its sequence.
    """

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
        self.item_embedding = nn.Embedding(n_items + 1, dim)
        self.position_embedding = nn.Embedding(max_length, dim)
        self.layers = nn.ModuleList(Block(dim, heads=heads, dropout=dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.item_embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding.weight, std=0.02)

    def forward(self, items: Tensor) -> Tensor:
        """[B, T] -> [B, T, D]; T at most max_length."""
        self.require_length(items)
        length = items.shape[1]
        positions = torch.arange(length, device=items.device)
        x = self.dropout(self.item_embedding(items) + self.position_embedding(positions))
        hidden = torch.ones(length, length, dtype=torch.bool, device=items.device).triu(1)
        for layer in self.layers:
            x = layer(x, hidden)
        states: Tensor = self.norm(x)
        return states

    def item_vectors(self) -> Tensor:
        """The embedding, which is shared by input and output: [n_items + 1, D]."""
        return self.item_embedding.weight


class Block(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, dim: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """[B, T, D]; hidden, broadcast to [B, H, T, T], true where attention must not look -> [B, T, D]."""
        x = x + self.dropout(self.attend(self.attention_norm(x), hidden))
        update: Tensor = self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return x + update

    def attend(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Self-attention of plain operations: fused kernels have no forward-mode derivative on the CPU."""
        b, t, d = x.shape
        qkv: Tensor = self.qkv(x)
        q, k, v = qkv.view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)  # [B, H, T, d]
        logits = (q @ k.transpose(-1, -2)) * (d // self.heads) ** -0.5
        weights = self.dropout(logits.masked_fill(hidden, float("-inf")).softmax(-1))
        output: Tensor = self.out((weights @ v).transpose(1, 2).reshape(b, t, d))
        return output
