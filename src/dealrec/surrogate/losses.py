"""The surrogate's losses per unit, as functions of its parameters.

A unit's loss is the weighted mean over its positions; only positions with a weight are computed.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dealrec.influence.hvp import Params, PerSampleLoss
from dealrec.surrogate.model import Surrogate
from dealrec.surrogate.units import Batch, uniform

LossName = Literal["bce", "sampled-softmax", "softmax"]
Labels = Callable[[Tensor], Tensor]  # logits -> labels drawn from the model's own distribution


def unit_losses(model: Surrogate, batch: Batch, *, loss: LossName = "bce") -> Tensor:
    """[B]: the mean over a unit's positions of the loss between a position's state and its target.

    bce: -log sigmoid(target's score) and the mean over the negatives of -log sigmoid(-score), as SASRec is
    published. sampled-softmax: cross-entropy of the target among itself and the negatives (Jannach et al., 2016,
    without correction, since negatives are uniform). softmax: cross-entropy over the whole catalogue.
    """
    rows, columns, logits = _logits(model, batch, loss=loss)
    if loss == "bce":
        losses = functional.softplus(-logits[:, 0]) + functional.softplus(logits[:, 1:]).mean(1)
    else:
        targets = batch["targets"][rows, columns]
        classes = targets - 1 if loss == "softmax" else torch.zeros_like(targets)
        losses = logits.logsumexp(1) - logits.gather(1, classes.unsqueeze(1)).squeeze(1)
    return _sum_by_unit(losses * batch["weights"][rows, columns].to(losses.dtype), rows, len(batch["items"]))


def unit_errors(model: Surrogate, batch: Batch, *, loss: LossName = "bce") -> Tensor:
    """[B]: the mean over a unit's positions of the L2 norm of prediction less target (EL2N, Paul et al., NeurIPS 2021).

    Predictions are the probabilities that the loss is of: of the target and each negative (bce), among target and
    negatives (sampled-softmax), or over the catalogue.
    """
    rows, columns, logits = _logits(model, batch, loss=loss)
    targets = batch["targets"][rows, columns]
    classes = targets - 1 if loss == "softmax" else torch.zeros_like(targets)
    predictions = logits.sigmoid() if loss == "bce" else logits.softmax(1)
    errors = (predictions - functional.one_hot(classes, logits.shape[1])).norm(dim=1)
    return _sum_by_unit(errors * batch["weights"][rows, columns].to(errors.dtype), rows, len(batch["items"]))


def unit_states(model: Surrogate, batch: Batch) -> Tensor:
    """[B, D]: the weighted mean over a unit's positions of the states that score their targets."""
    rows, columns = batch["weights"].nonzero(as_tuple=True)
    states: Tensor = model(batch["items"])[rows, columns]
    weights = batch["weights"][rows, columns].to(states.dtype)
    return states.new_zeros(len(batch["items"]), states.shape[1]).index_add(0, rows, states * weights.unsqueeze(1))


def pseudo_unit_losses(model: Surrogate, batch: Batch, *, loss: LossName, seed: int) -> Tensor:
    """[B]: losses against labels that the model itself draws: E[g g^T] is the Gauss-Newton matrix of `unit_losses`.

    Every term enters with the root of its weight, since the second moment of a weighted gradient would have the
    weight squared. Labels follow from the seed and a position's place in the data, whatever the batch.
    """
    rows, columns, logits = _logits(model, batch, loss=loss)
    each = logits.shape[1] if loss == "bce" else 1
    counters = batch["places"][rows, columns].unsqueeze(1) * each + torch.arange(each, device=logits.device)
    drawn, scores = uniform(counters, seed=seed).to(logits.dtype), logits.detach()
    if loss == "bce":
        labels = (drawn < scores.sigmoid()).to(logits.dtype)
        share = torch.full_like(scores[:1], 1 / (logits.shape[1] - 1))
        share[:, 0] = 1.0
        losses = ((functional.softplus(logits) - labels * logits) * share.sqrt()).sum(1)
    else:
        classes = (scores.softmax(1).cumsum(1) < drawn).sum(1).clamp_max(logits.shape[1] - 1)
        losses = logits.logsumexp(1) - logits.gather(1, classes.unsqueeze(1)).squeeze(1)
    weights = batch["weights"][rows, columns].to(losses.dtype).sqrt()
    return _sum_by_unit(losses * weights, rows, len(batch["items"]))


def _logits(model: Surrogate, batch: Batch, *, loss: LossName) -> tuple[Tensor, Tensor, Tensor]:
    """Unit and column of each position that counts [P], and its scores [P, 1 + N] (target first) or [P, n_items]."""
    rows, columns = batch["weights"].nonzero(as_tuple=True)
    everywhere = model(batch["items"])  # [B, T, D]
    states = everywhere[rows, columns]  # [P, D]
    vectors = model.item_vectors()
    if loss == "softmax":
        return rows, columns, states @ vectors[1 : model.n_items + 1].T
    negatives = batch["negatives"]
    shared = negatives.shape[1] == 1
    chosen = [batch["targets"].unsqueeze(2)[rows, columns], negatives[rows, 0 if shared else columns]]
    candidates = torch.cat(chosen, dim=1)  # [P, 1 + N]
    # The backward of `embedding` adds up rows faster than that of indexing.
    if shared and len(rows) > len(negatives):
        everywhere = everywhere.masked_fill((batch["weights"] == 0).unsqueeze(2), 0.0)  # whatever a model has there
        others = everywhere @ functional.embedding(negatives[:, 0], vectors).transpose(1, 2)  # [B, T, N]
        own = (states * functional.embedding(candidates[:, 0], vectors)).sum(1, keepdim=True)
        logits = torch.cat([own, others[rows, columns]], dim=1)
    else:
        logits = torch.bmm(functional.embedding(candidates, vectors), states.unsqueeze(2)).squeeze(2)
    if loss == "sampled-softmax":  # a negative that is the target would cancel its gradient to rounding errors
        hits = functional.pad(candidates[:, 1:] == candidates[:, :1], (1, 0))
        logits = logits.masked_fill(hits, float("-inf"))
    return rows, columns, logits


def _sum_by_unit(values: Tensor, rows: Tensor, units: int) -> Tensor:
    return values.new_zeros(units).index_add(0, rows, values)


def per_sample_loss(model: Surrogate, *, loss: LossName = "bce") -> PerSampleLoss:
    """`unit_losses` as a function of some of the parameters, the others fixed at the model's.

    The model is put into eval mode: scores without dropout.
    """
    return _functional(model, lambda inner, batch: unit_losses(inner, batch, loss=loss))


def pseudo_losses(model: Surrogate, *, loss: LossName = "bce", draws: int = 1, seed: int = 0) -> list[PerSampleLoss]:
    """`pseudo_unit_losses` as functions of some of the parameters, one for each draw of labels."""

    def draw(number: int) -> PerSampleLoss:
        return _functional(
            model, lambda inner, batch: pseudo_unit_losses(inner, batch, loss=loss, seed=seed * 1_000 + number)
        )

    return [draw(number) for number in range(draws)]


def _functional(model: Surrogate, losses: Callable[[Surrogate, Batch], Tensor]) -> PerSampleLoss:
    model.eval()
    fixed = {name: value.detach() for name, value in model.named_parameters()}
    module = _Losses(model, losses)

    def loss(params: Params, batch: Batch) -> Tensor:
        state = {f"model.{name}": value for name, value in {**fixed, **params}.items()}
        values: Tensor = torch.func.functional_call(module, state, (batch,))
        return values

    return loss


class _Losses(nn.Module):
    """Makes the losses a module's forward, which is what functional_call calls."""

    def __init__(self, model: Surrogate, losses: Callable[[Surrogate, Batch], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.losses = losses

    def forward(self, batch: Batch) -> Tensor:
        return self.losses(self.model, batch)
