"""SASRec: self-attentive sequential recommendation (Kang and McAuley, ICDM 2018)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from dealrec.influence.hvp import Params, PerSampleLoss
from dealrec.surrogate.units import Batch


class SASRec(nn.Module):
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
        super().__init__()
        self.n_items, self.max_length = n_items, max_length
        self.item_embedding = nn.Embedding(n_items + 1, dim)
        self.position_embedding = nn.Embedding(max_length, dim)
        self.layers = nn.ModuleList(Block(dim, heads=heads, dropout=dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.item_embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding.weight, std=0.02)

    def forward(self, items: Tensor) -> Tensor:
        """[B, T] -> [B, T, D]; T at most max_length."""
        length = items.shape[1]
        if length > self.max_length:
            raise ValueError(f"a sequence of {length} items is longer than max_length {self.max_length}")
        positions = torch.arange(length, device=items.device)
        x = self.dropout(self.item_embedding(items) + self.position_embedding(positions))
        hidden = torch.ones(length, length, dtype=torch.bool, device=items.device).triu(1)
        for layer in self.layers:
            x = layer(x, hidden)
        normed: Tensor = self.norm(x)
        return normed

    def parameter_globs(self, globs: list[str]) -> list[str]:
        """Globs over parameter names, with `last-block` spelt out."""
        return [f"layers.{len(self.layers) - 1}.*" if glob == "last-block" else glob for glob in globs]

    def scores(self, states: Tensor) -> Tensor:
        """States [B, D] -> a score for every item [B, n_items]; column j is item index j + 1."""
        scores: Tensor = states @ self.item_embedding.weight[1:].T
        return scores


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
        """[B, T, D], and [T, T] true where attention must not look -> [B, T, D]."""
        x = x + self.dropout(self.attend(self.attention_norm(x), hidden))
        fed: Tensor = self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return x + fed

    def attend(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Causal self-attention of plain operations: fused kernels have no forward-mode derivative on the CPU."""
        b, t, d = x.shape
        joined: Tensor = self.qkv(x)
        q, k, v = joined.view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)  # [B, H, T, d]
        logits = (q @ k.transpose(-1, -2)) * (d // self.heads) ** -0.5
        weights = self.dropout(logits.masked_fill(hidden, float("-inf")).softmax(-1))
        mixed: Tensor = self.out((weights @ v).transpose(1, 2).reshape(b, t, d))
        return mixed


def unit_losses(model: SASRec, batch: Batch) -> Tensor:
    """Binary cross-entropy with sampled negatives, as SASRec is published: [B], the mean over a unit's positions.

    A position adds -log sigmoid(score of the target) and the mean over its negatives of -log sigmoid(-score).
    """
    states = model(batch["items"])  # [B, T, D]
    positive = (states * model.item_embedding(batch["targets"])).sum(-1)
    negative = torch.einsum("btd,btnd->btn", states, model.item_embedding(batch["negatives"]))
    losses = functional.softplus(-positive) + functional.softplus(negative).mean(-1)
    return (losses * batch["weights"].to(losses.dtype)).sum(1)


def per_sample_loss(model: SASRec) -> PerSampleLoss:
    """`unit_losses` as a function of some of the parameters, the others fixed at the model's.

    The model is put into eval mode: scores without dropout.
    """
    model.eval()
    fixed = {name: value.detach() for name, value in model.named_parameters()}
    wrapped = _Losses(model)

    def loss(params: Params, batch: Batch) -> Tensor:
        state = {f"model.{name}": value for name, value in {**fixed, **params}.items()}
        losses: Tensor = torch.func.functional_call(wrapped, state, (batch,))
        return losses

    return loss


class _Losses(nn.Module):
    """Makes `unit_losses` a module's forward, which is what functional_call calls."""

    def __init__(self, model: SASRec) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        return unit_losses(self.model, batch)
