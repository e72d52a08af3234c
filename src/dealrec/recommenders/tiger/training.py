"""Training of TIGER on every position of the training sequences, and ranking by beam search.

A plain loop rather than the Trainer that fine-tunes LLMs: samples are a few dozen tokens, so that batches are
indexed out of tensors at once, not collated a sample at a time, and an epoch can be resumed to the bit.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor

from dealrec.errors import NonFinite
from dealrec.recommenders.tiger.decoding import make_trie, recommend
from dealrec.recommenders.tiger.semantic_ids import EOS, PAD, SemanticIds
from dealrec.sequences.batches import plan_indices


@dataclass(frozen=True)
class Examples:
    """p samples within sequences of catalogue rows that stand end to end.

    items: the rows, [total]. starts, targets: where each sample's sequence starts and its target stands among
    the items, [p]. max_items: of the history, that the model reads.
    """

    items: Tensor
    starts: Tensor
    targets: Tensor
    max_items: int

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def lengths(self) -> Tensor:
        """Items of each history that the model reads: [p]."""
        return (self.targets - self.starts).clamp_max(self.max_items)

    @property
    def target_rows(self) -> Tensor:
        """Row of each target: [p]."""
        return self.items[self.targets]

    def histories(self) -> list[list[int]]:
        """The whole history of each sample, for leaving out what has been seen."""
        pairs = zip(self.starts.tolist(), self.targets.tolist(), strict=True)
        return [self.items[start:target].tolist() for start, target in pairs]

    def plan(self, *, batch_size: int, generator: torch.Generator | None = None) -> list[Tensor]:
        """Indices of samples, batch by batch, as `plan_batches` orders them."""
        return plan_indices(self.lengths, batch_size=batch_size, generator=generator)


def positions(sequences: Sequence[Sequence[int]], *, max_items: int = 20) -> Examples:
    """Every item of each sequence but the first, as the target of the items before it."""
    ends = torch.tensor([len(sequence) for sequence in sequences], dtype=torch.int64).cumsum(0)
    items = torch.tensor([item for sequence in sequences for item in sequence], dtype=torch.int64)
    starts = torch.repeat_interleave(ends - ends.diff(prepend=ends.new_zeros(1)), ends.diff(prepend=ends.new_zeros(1)))
    places = torch.arange(len(items))
    inner = places > starts
    return Examples(items, starts[inner], places[inner], max_items)


def last_positions(sequences: Sequence[Sequence[int]], *, max_items: int = 20) -> Examples:
    """The last item of each sequence as the target of those before it, in the order of the sequences.

    A sequence of one item is a target with an empty history; an empty one is a ValueError.
    """
    lengths = torch.tensor([len(sequence) for sequence in sequences], dtype=torch.int64)
    if len(lengths) and not int(lengths.min()):
        raise ValueError("a sample needs a target")
    items = torch.tensor([item for sequence in sequences for item in sequence], dtype=torch.int64)
    ends = lengths.cumsum(0)
    return Examples(items, ends - lengths, ends - 1, max_items)


def batch(examples: Examples, ids: SemanticIds, index: Tensor, *, device: torch.device) -> dict[str, Tensor]:
    """input_ids and attention_mask [B, S], labels [B, L], as `encode` makes them a sample at a time."""
    lengths, levels = examples.lengths[index], ids.tokens.shape[1]
    columns = torch.arange(int(lengths.max()))
    real = columns < lengths.unsqueeze(1)  # [B, T]
    place = torch.where(real, (examples.targets[index] - lengths).unsqueeze(1) + columns, 0)
    tokens = ids.tokens[examples.items[place]].masked_fill(~real.unsqueeze(2), PAD).flatten(1)  # [B, T * L]
    ends = (lengths * levels).unsqueeze(1)
    input_ids = torch.nn.functional.pad(tokens, (0, 1), value=PAD).scatter(1, ends, EOS)
    inputs = {
        "input_ids": input_ids,
        "attention_mask": (torch.arange(input_ids.shape[1]) <= ends).long(),
        "labels": ids.tokens[examples.target_rows[index]],
    }
    return {name: value.to(device) for name, value in inputs.items()}


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to: mean cross-entropies of a token in nats.

    valid_levels: the validation loss level by level, which tells where the model fails. Empty without validation.
    """

    epoch: int
    train_loss: float
    valid_levels: tuple[float, ...]

    def quality(self) -> float:
        """What is to be the greatest: minus the validation loss; without validation the latest.

        No ranking: by NDCG the first epoch can look best, since what beams recommend before anything is learnt is
        what is popular.
        """
        return -sum(self.valid_levels) if self.valid_levels else float(self.epoch)


@dataclass(frozen=True)
class Checkpoint:
    """All that training needs to go on after an epoch. tensors: the model's, the best model's, Adam's."""

    epochs: list[Epoch]
    tensors: dict[str, Tensor]


def train(
    model: Any,
    ids: SemanticIds,
    examples: Examples,
    valid: Examples | None,
    *,
    learning_rate: float = 5e-3,
    warmup_steps: int = 500,
    weight_decay: float = 0.0,
    batch_size: int = 256,
    max_epochs: int = 100,
    patience: int = 10,
    seed: int = 0,
    start: Checkpoint | None = None,
    keep: Callable[[Checkpoint], None] = lambda _: None,
    watch: Callable[[Sequence[Tensor]], Iterable[Tensor]] = iter,
) -> list[Epoch]:
    """Train `model` in place with AdamW and leave it at its best epoch; one Epoch for each that ran.

    learning_rate: reached after warmup_steps, from where it falls with the square root of the steps (as in T5), so
    that no length of the training need be known. valid: samples whose loss is taken after each epoch; training ends
    after `patience` epochs without a lower loss. None: all epochs, the last is kept. start: an earlier run's
    checkpoint, to go on from. keep: called with a checkpoint after each epoch. watch: shows an epoch's progress. Order
    and dropout follow from `seed` and the epoch's number alone, so that a resumed run ends like an uninterrupted one.
    Raises NonFinite if the loss diverges.
    """
    if not len(examples):
        raise ValueError("there is no sample to train on")
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    epochs = list(start.epochs) if start else []
    best = _restore(model, optimizer, start.tensors) if start else copy.deepcopy(model.state_dict())
    while len(epochs) < max_epochs and not _is_exhausted(epochs, patience):
        number = len(epochs) + 1
        with torch.random.fork_rng():  # dropout draws from the global generator
            torch.manual_seed(_epoch_seed(seed, number))
            generator = torch.Generator().manual_seed(_epoch_seed(seed, number))
            order = examples.plan(batch_size=batch_size, generator=generator)
            rates = _rates(learning_rate, warmup_steps, start=(number - 1) * len(order) + 1)
            loss = _train_epoch(model, optimizer, ids, examples, watch(order), rates)
        if not math.isfinite(loss):
            raise NonFinite(f"tiger: the loss diverged in epoch {number}", "Lower the learning rate.")
        epochs.append(Epoch(number, loss, () if valid is None else level_losses(model, ids, valid)))
        if _best(epochs) is epochs[-1]:
            best = copy.deepcopy(model.state_dict())
        keep(Checkpoint(epochs, _tensors(model, optimizer, best)))
    model.load_state_dict(best)
    model.eval()
    return epochs


def _best(epochs: Sequence[Epoch]) -> Epoch:
    return max(epochs, key=Epoch.quality)  # the first of equal ones


def _is_exhausted(epochs: Sequence[Epoch], patience: int) -> bool:
    return bool(epochs) and len(epochs) - _best(epochs).epoch >= patience


def _epoch_seed(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch) % 2**63


def _rates(peak: float, warmup: int, *, start: int) -> Iterator[float]:
    """The learning rate of each step from `start`, counted from 1: up to the peak, then down by the square root."""
    return (peak * min(step / max(warmup, 1), math.sqrt(max(warmup, 1) / step)) for step in count(start))


def _train_epoch(
    model: Any,
    optimizer: torch.optim.Optimizer,
    ids: SemanticIds,
    examples: Examples,
    order: Iterable[Tensor],
    rates: Iterable[float],
) -> float:
    total = 0.0
    model.train()
    for index, rate in zip(order, rates, strict=False):  # the rates have no end
        for group in optimizer.param_groups:
            group["lr"] = rate
        # All labels have as many tokens, so the mean over tokens is the mean of the samples' own means.
        loss = model(**batch(examples, ids, index, device=model.device), use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) * len(index)
    model.eval()
    return total / len(examples)


@torch.inference_mode()
def level_losses(model: Any, ids: SemanticIds, examples: Examples, *, batch_size: int = 256) -> tuple[float, ...]:
    """Mean cross-entropy of the targets' tokens at each level: L values in nats. The model is in eval mode."""
    total = torch.zeros(ids.tokens.shape[1], dtype=torch.float64)
    for index in examples.plan(batch_size=batch_size):
        inputs = batch(examples, ids, index, device=model.device)
        logits = model(**inputs, use_cache=False).logits
        losses = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), inputs["labels"], reduction="none")
        total += losses.double().sum(0).cpu()
    return tuple((total / len(examples)).tolist())


def rank(
    model: Any,
    ids: SemanticIds,
    examples: Examples,
    *,
    k: int,
    beams: int,
    exclude_seen: bool,
    batch_size: int = 32,
    watch: Callable[[Sequence[Tensor]], Iterable[Tensor]] = iter,
) -> list[list[int]]:
    """What `recommend` finds for each sample, in their order: at most k rows each.

    exclude_seen: leave out the items of the whole history, those included that the model does not read. The
    model is in eval mode.
    """
    trie = make_trie(ids, device=model.device)
    histories = examples.histories() if exclude_seen else None
    rankings: list[list[int]] = [[] for _ in range(len(examples))]
    for index in watch(examples.plan(batch_size=batch_size)):
        inputs = batch(examples, ids, index, device=model.device)
        seen = None if histories is None else [histories[i] for i in index.tolist()]
        ranked = recommend(model, trie, inputs["input_ids"], inputs["attention_mask"], k=k, beams=beams, seen=seen)
        for i, rows in zip(index.tolist(), ranked, strict=True):
            rankings[i] = rows
    return rankings


def _tensors(model: Any, optimizer: torch.optim.Optimizer, best: dict[str, Tensor]) -> dict[str, Tensor]:
    adam = {
        f"adam.{place}.{name}": value
        for place, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    now = {f"model.{name}": value for name, value in model.state_dict().items()}
    live = now | {f"best.{name}": value for name, value in best.items()} | adam
    return {name: value.detach().clone() for name, value in live.items()}


def _restore(model: Any, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put model and optimizer back to a checkpoint; the best weights so far."""

    def under(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    model.load_state_dict(under("model."))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in under("adam.").items():
        place, _, part = name.partition(".")
        state.setdefault(int(place), {})[part] = value.clone()  # Adam goes on in place
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return under("best.")
