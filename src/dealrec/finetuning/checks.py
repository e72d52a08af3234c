"""The proof that a fine-tuned model was saved."""

import torch
from torch import Tensor

from dealrec.errors import ModelError

_REMEDY = "Check that the versions of peft and transformers go together (constraints.txt lists tested ones)."


def require_saved(reloaded: Tensor, *, trained: Tensor, untrained: Tensor, name: str) -> None:
    """Raise ModelError unless the model that was loaded again answers as the trained one, and unlike the untrained.

    Losses of the same samples [n], each in eval mode. An adapter that was not saved or not loaded goes unnoticed
    otherwise: the model simply answers like the one that training started from.
    """
    if torch.equal(reloaded, untrained):
        raise ModelError(f"finetune: what was saved of {name!r} does not change the model's outputs", _REMEDY)
    if not torch.allclose(reloaded, trained, rtol=1e-3, atol=1e-4):
        raise ModelError(f"finetune: {name!r} answers differently after saving and loading", _REMEDY)
