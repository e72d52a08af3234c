"""GRU4Rec: a recurrent recommender (Hidasi et al., ICLR 2016)."""

import torch
from torch import Tensor, nn

from dealrec.surrogate.model import Surrogate


class GRU4Rec(Surrogate):
    """Item indices [B, T] -> states [B, T, D]; a position's state predicts the next item.

    The recurrence is composed of plain operations: torch's own GRU keeps its weights where functional_call does not
    reach them, and its CUDA kernel has no second derivative. Input and output share the item embedding.
    """

    def __init__(
        self, n_items: int, *, dim: int = 64, layers: int = 1, max_length: int = 50, dropout: float = 0.2
    ) -> None:
        super().__init__(n_items, max_length=max_length)
        self.last_block = f"layers.{layers - 1}."
        self.item_embedding = nn.Embedding(n_items + 1, dim)
        self.layers = nn.ModuleList(GRU(dim) for _ in range(layers))
        self.out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.item_embedding.weight, std=0.02)

    def forward(self, items: Tensor) -> Tensor:
        """[B, T] -> [B, T, D]."""
        self.require_length(items)
        x = self.dropout(self.item_embedding(items))
        for layer in self.layers:
            x = self.dropout(layer(x))
        states: Tensor = self.out(x)
        return states

    def item_vectors(self) -> Tensor:
        """The embedding, which is shared by input and output: [n_items + 1, D]."""
        return self.item_embedding.weight


class GRU(nn.Module):
    """h_t = (1 - z) n + z h_(t-1), the gates r, z and n as in torch.nn.GRU (Cho et al., 2014)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.from_input = nn.Linear(dim, 3 * dim)
        self.from_state = nn.Linear(dim, 3 * dim)
        for weight in (self.from_input.weight, self.from_state.weight):
            for gate in weight.chunk(3):
                nn.init.orthogonal_(gate)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D], from a state of zeros."""
        inputs = self.from_input(x)  # for all positions at once: only the state's share is a recurrence
        state = x.new_zeros(x.shape[0], x.shape[2])
        states = []
        for t in range(x.shape[1]):
            input_r, input_z, input_n = inputs[:, t].chunk(3, dim=-1)
            state_r, state_z, state_n = self.from_state(state).chunk(3, dim=-1)
            update = torch.sigmoid(input_z + state_z)
            new = torch.tanh(input_n + torch.sigmoid(input_r + state_r) * state_n)
            state = new + update * (state - new)
            states.append(state)
        return torch.stack(states, dim=1)
