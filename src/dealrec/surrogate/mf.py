"""Matrix factorisation without user parameters (Paterek, 2007, NSVD; Kabbur et al., KDD 2013, FISM)."""

import torch
from torch import Tensor, nn

from dealrec.surrogate.model import Surrogate


class MF(Surrogate):
    """Item indices [B, T] -> states [B, T, D + 1]; the order of the items up to a position does not matter.

    A user is the sum of the factors of their items, divided by the root of their number; another set of factors and
    a bias score the next item. Users have no parameters of their own: a unit's influence on other users would
    not pass through them, and a user who is held out would have none.
    """

    def __init__(self, n_items: int, *, dim: int = 64, max_length: int = 50, dropout: float = 0.2) -> None:
        super().__init__(n_items, max_length=max_length)
        self.last_block = "item_"
        self.user_factors = nn.Embedding(n_items + 1, dim)
        self.item_factors = nn.Embedding(n_items + 1, dim)
        self.item_bias = nn.Embedding(n_items + 1, 1)
        self.dropout = nn.Dropout(dropout)
        for factors in (self.user_factors, self.item_factors):
            nn.init.normal_(factors.weight, std=0.02)
        nn.init.zeros_(self.item_bias.weight)

    def forward(self, items: Tensor) -> Tensor:
        """[B, T] -> [B, T, D + 1]; the last column is 1 and meets the bias."""
        self.require_length(items)
        count = torch.arange(1, items.shape[1] + 1, device=items.device)
        user = self.user_factors(items).cumsum(1) / count.sqrt().unsqueeze(1)
        user = self.dropout(user)
        return torch.cat([user, user.new_ones(*items.shape, 1)], dim=2)

    def item_vectors(self) -> Tensor:
        """Factors and bias: [n_items + 1, D + 1]."""
        return torch.cat([self.item_factors.weight, self.item_bias.weight], dim=1)
