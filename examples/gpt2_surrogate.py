"""GPT-2 of transformers as the surrogate: surrogate.kind=custom surrogate.module=examples/gpt2_surrogate.py."""

from torch import Tensor
from transformers import GPT2Config, GPT2Model

from dealrec.surrogate import Surrogate


class _GPT2(Surrogate):
    """Items are GPT-2's tokens; a position's state scores the next item by its product with the input embedding."""

    last_block = "gpt2.h.1."  # what influence.parameters: [last-block] stands for

    def __init__(self, n_items: int, max_length: int) -> None:
        super().__init__(n_items, max_length=max_length)
        tokens = {"vocab_size": n_items + 1, "bos_token_id": 0, "eos_token_id": 0}  # 0 is padding
        shape = {"n_positions": max_length, "n_embd": 64, "n_layer": 2, "n_head": 2}
        self.gpt2 = GPT2Model(GPT2Config(**tokens, **shape, use_cache=False, attn_implementation="eager"))

    def forward(self, items: Tensor) -> Tensor:
        return self.gpt2(items).last_hidden_state

    def item_vectors(self) -> Tensor:
        return self.gpt2.wte.weight


def surrogate(n_items: int, max_length: int) -> Surrogate:
    """What dealrec calls."""
    return _GPT2(n_items, max_length)
