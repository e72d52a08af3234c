"""Training of the surrogate: the mean of the units' losses, the best epoch by validation NDCG kept."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from dealrec.errors import NonFinite
from dealrec.surrogate.losses import LossName, unit_losses
from dealrec.surrogate.model import Surrogate
from dealrec.surrogate.units import Negatives, Units, batch, draw_cloze, padded_places, plan

NDCG_AT = 10
SCORES = 2**26  # of items, at most, in a batch of ranks: 256 MiB


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to. valid_ndcg is NDCG@10, valid_mrr the mean reciprocal rank; None without validation."""

    epoch: int
    train_loss: float
    valid_ndcg: float | None
    valid_mrr: float | None

    def quality(self) -> tuple[float, float]:
        """What is to be the greatest: NDCG, where it is equal the reciprocal rank; without validation the latest."""
        if self.valid_ndcg is None or self.valid_mrr is None:
            return float(self.epoch), 0.0
        # While nothing is among the first ten yet, the reciprocal rank tells whether it gets nearer.
        return self.valid_ndcg, self.valid_mrr


def train(
    model: Surrogate,
    units: Units,
    valid: Units | None,
    *,
    learning_rate: float,
    batch_size: int,
    negatives: int,
    shared_negatives: bool = False,
    max_epochs: int,
    patience: int,
    seed: int,
    loss: LossName = "bce",
    hidden_share: float = 0.2,
    validation_samples: int | None = None,
    watch: Callable[[range], Iterable[int]] = iter,
) -> list[Epoch]:
    """Train `model` in place with Adam and leave it at its best epoch; one Epoch for each that ran.

    valid: units whose last item is to be ranked; the epoch with the best NDCG@10 over the whole catalogue is
    kept (of equal ones that with the better mean reciprocal rank), and training ends after `patience` epochs
    without a better one; of more than `validation_samples` so many are drawn. None: all epochs, the last is kept.
    negatives: for each position, or if shared_negatives for all positions of a unit, drawn anew each epoch. They, the
    order and dropout follow from `seed`.
    Raises NonFinite if the loss diverges.
    """
    if not len(units):
        raise ValueError("there is no unit to train on")
    device = next(model.parameters()).device
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    generator, count = torch.Generator().manual_seed(seed), 0 if loss == "softmax" else negatives
    if valid is not None and validation_samples is not None and len(valid) > validation_samples:
        drawn = torch.randperm(len(valid), generator=torch.Generator().manual_seed(seed))
        valid = valid.take(drawn[:validation_samples])
    history: list[Epoch] = []
    best, best_epoch, best_state = (-1.0, -1.0), 0, copy.deepcopy(model.state_dict())
    with torch.random.fork_rng():  # dropout draws from the global generator
        torch.manual_seed(seed)
        for number in watch(range(1, max_epochs + 1)):
            epoch_seed = (seed * 1_000_003 + number) % 2**63
            epoch_negatives = Negatives(model.n_items, count, epoch_seed, shared_negatives)
            cloze = None
            if model.hidden_item is not None:
                cloze = draw_cloze(units, index=model.hidden_item, share=hidden_share, seed=epoch_seed)
            total = 0.0
            model.train()
            for index in plan(units, batch_size=batch_size, generator=generator):
                inputs = batch(units, epoch_negatives, index, cloze=cloze, device=device)
                losses = unit_losses(model, inputs, loss=loss)
                optimizer.zero_grad()
                losses.mean().backward()
                optimizer.step()
                total += float(losses.detach().sum())
            if not torch.isfinite(torch.tensor(total)):
                raise NonFinite(f"surrogate: the loss diverged in epoch {number}", "Lower surrogate.learning_rate.")
            ranks = None if valid is None else target_ranks(model, valid)
            ndcg, mrr = (None, None) if ranks is None else (_mean_ndcg(ranks, k=NDCG_AT), float((1 / ranks).mean()))
            history.append(Epoch(number, total / len(units), ndcg, mrr))
            if history[-1].quality() > best:
                best, best_epoch, best_state = history[-1].quality(), number, copy.deepcopy(model.state_dict())
            elif number - best_epoch >= patience:
                break
    model.load_state_dict(best_state)
    return history


@torch.no_grad()
def target_ranks(model: Surrogate, units: Units, *, batch_size: int = 256, exclude_seen: bool = True) -> Tensor:
    """Rank of each unit's last item given the others, from 1, over the whole catalogue: [n].

    With exclude_seen items of the history are left out of the ranking, unless the target is among them. A tie
    counts half of the tied items as ahead, so that a constant score is neither best nor worst. Raises NonFinite
    if the model gives a target no finite score: compared with NaN, nothing would be ahead of it. A batch holds
    batch_size units, of large catalogues fewer.
    """
    model.eval()
    device = next(model.parameters()).device
    ranks = torch.empty(len(units), dtype=torch.float64)
    for index in plan(units, batch_size=max(1, min(batch_size, SCORES // model.n_items))):
        items, lengths, target = (tensor.to(device) for tensor in _histories(units.take(index)))
        scores = model.scores(model.next_states(items, lengths))
        target_scores = scores.gather(1, target.unsqueeze(1) - 1)
        if not bool(torch.isfinite(target_scores).all()):
            raise NonFinite("surrogate: the model's scores are NaN or infinite", "Lower surrogate.learning_rate.")
        ahead, level = (scores > target_scores).sum(1), (scores >= target_scores).sum(1)
        if exclude_seen:
            seen = items.sort(1).values
            other = (seen > 0) & (seen != target.unsqueeze(1))
            other[:, 1:] &= seen[:, 1:] != seen[:, :-1]  # an item that is had twice counts once
            theirs = scores.gather(1, (seen - 1).clamp_min(0))
            ahead -= ((theirs > target_scores) & other).sum(1)
            level -= ((theirs >= target_scores) & other).sum(1)
        ranks[index] = (1 + (ahead + level - 1) / 2).double().cpu()
    return ranks


def _histories(units: Units) -> tuple[Tensor, Tensor, Tensor]:
    """Padded histories [B, T], their lengths [B], and the targets [B]."""
    lengths = units.lengths - 1
    real, place = padded_places(units.offsets[:-1], lengths)
    return torch.where(real, units.items[place], 0), lengths, units.items[units.offsets[1:] - 1]


def mean_ndcg(model: Surrogate, units: Units, *, k: int) -> float:
    """NDCG@k with the one relevant item of each unit: the mean of 1 / log2(1 + rank) within the first k."""
    if not len(units):
        raise ValueError("there is no unit to rank")
    return _mean_ndcg(target_ranks(model, units), k=k)


def _mean_ndcg(ranks: Tensor, *, k: int) -> float:
    return float(torch.where(ranks <= k, 1 / torch.log2(1 + ranks), 0.0).mean())
