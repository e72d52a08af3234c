"""Training of the surrogate: the mean of the units' losses, the best epoch by validation NDCG kept."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dealrec.errors import NonFinite
from dealrec.surrogate.losses import LossName, unit_losses
from dealrec.surrogate.model import Surrogate
from dealrec.surrogate.units import Units, batch, draw_cloze, draw_negatives, plan

NDCG_AT = 10


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
    max_epochs: int,
    patience: int,
    seed: int,
    loss: LossName = "bce",
    hidden_share: float = 0.2,
    watch: Callable[[range], Iterable[int]] = iter,
) -> list[Epoch]:
    """Train `model` in place with Adam and leave it at its best epoch; one Epoch for each that ran.

    valid: units whose last item is to be ranked; the epoch with the best NDCG@10 over the whole catalogue is
    kept (of equal ones that with the better mean reciprocal rank), and training ends after `patience` epochs
    without a better one. None: all epochs, the last is kept. Negatives, order and dropout follow from `seed`.
    Raises NonFinite if the loss diverges.
    """
    if not len(units):
        raise ValueError("there is no unit to train on")
    device = next(model.parameters()).device
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    history: list[Epoch] = []
    best, best_epoch, best_state = (-1.0, -1.0), 0, copy.deepcopy(model.state_dict())
    with torch.random.fork_rng():  # dropout draws from the global generator
        torch.manual_seed(seed)
        for number in watch(range(1, max_epochs + 1)):
            epoch_seed = (seed * 1_000_003 + number) % 2**63
            epoch_negatives = draw_negatives(units, n_items=model.n_items, per_position=negatives, seed=epoch_seed)
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
    if the model gives a target no finite score: compared with NaN, nothing would be ahead of it.
    """
    model.eval()
    device = next(model.parameters()).device
    ranks = torch.empty(len(units), dtype=torch.float64)
    for index in plan(units, batch_size=batch_size):
        items, lengths, target = _histories(units, index, device)
        scores = model.scores(model.next_states(items, lengths))
        target_scores = scores.gather(1, (target - 1).unsqueeze(1))
        if not bool(torch.isfinite(target_scores).all()):
            raise NonFinite("surrogate: the model's scores are NaN or infinite", "Lower surrogate.learning_rate.")
        scores = torch.cat([scores.new_full((len(index), 1), float("-inf")), scores], dim=1)  # column 0: padding
        if exclude_seen:
            scores = scores.scatter(1, items, float("-inf"))
        scores = scores.scatter(1, target.unsqueeze(1), target_scores)
        ahead = (scores > target_scores).sum(1)
        tied = (scores == target_scores).sum(1) - 1
        ranks[index] = (1 + ahead + tied / 2).double().cpu()
    return ranks


def _histories(units: Units, index: Tensor, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Padded histories [B, T], their lengths [B], and the targets [B]."""
    rows: Sequence[Tensor] = [units.items[units.offsets[i] : units.offsets[i + 1]] for i in index.tolist()]
    items = torch.nn.utils.rnn.pad_sequence([row[:-1] for row in rows], batch_first=True)
    lengths = torch.tensor([len(row) - 1 for row in rows])
    return items.to(device), lengths.to(device), torch.stack([row[-1] for row in rows]).to(device)


def mean_ndcg(model: Surrogate, units: Units, *, k: int) -> float:
    """NDCG@k with the one relevant item of each unit: the mean of 1 / log2(1 + rank) within the first k."""
    if not len(units):
        raise ValueError("there is no unit to rank")
    return _mean_ndcg(target_ranks(model, units), k=k)


def _mean_ndcg(ranks: Tensor, *, k: int) -> float:
    return float(torch.where(ranks <= k, 1 / torch.log2(1 + ranks), 0.0).mean())
