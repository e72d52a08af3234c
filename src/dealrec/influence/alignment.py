"""Gradient alignment of a language model's samples with validation, by one forward-mode pass.

LESS (Xia et al., arXiv 2402.04333) at one checkpoint, without its projections and its cosine: the product itself, which
is to first order what a step down the validation loss does to a sample's loss.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dealrec.influence.hvp import Params, PerSampleLoss, Vector, directional_scores, mean_gradient
from dealrec.sequences.losses import sequence_losses

Tokens = Mapping[str, Tensor]  # a batch, as `sequence_losses` has it


def validation_gradient(model: nn.Module, batches: Iterable[Tokens]) -> Vector:
    """Gradient of the mean of the samples' losses over the parameters that require grad, by their names.

    The model is in eval mode. Raises NonFinite if a loss or the gradient is NaN or infinite.
    """
    return mean_gradient(_loss_at(model), _learnable(model), batches)


def alignments(model: nn.Module, batches: Iterable[Tokens], gradient: Vector) -> Tensor:
    """grad L(s)^T gradient for every sample s: [n], in the order of the batches; the model is in eval mode.

    gradient: of `validation_gradient`. Positive: a step against it lowers the sample's loss too. Raises NonFinite, with
    the positions of the samples, for NaN or infinity.
    """
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no forward mode
        return directional_scores(_loss_at(model), _learnable(model), batches, gradient)


def _learnable(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


class _Losses(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Tokens) -> Tensor:
        return sequence_losses(self.model, batch)


def _loss_at(model: nn.Module) -> PerSampleLoss:
    """The samples' losses as a function of the learnable parameters."""
    losses = _Losses(model)

    def loss_at(params: Params, batch: Tokens) -> Tensor:
        values = {f"model.{name}": value for name, value in params.items()}
        return torch.func.functional_call(losses, values, (batch,))  # type: ignore[no-any-return]

    return loss_at
