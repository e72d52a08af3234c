"""Training units: what the surrogate's loss is a mean over, and what influence removes.

With one sample per user a unit is the user's whole training sequence, its loss the mean over the sequence's
positions, the LLM's target included. With N samples per user each sample is a unit of its own, its loss
that of its last position. Nothing is trained on that is not a unit.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dealrec.sequences.batches import plan_batches

Batch = dict[str, Tensor]  # items, targets, places [B, T]; negatives [B, T, N]; weights [B, T], rows sum to 1


@dataclass(frozen=True)
class Units:
    """n sequences of item indices (1-based), end to end: unit i is `items[offsets[i] : offsets[i + 1]]`.

    The last item is the unit's target. whole: the loss is over all positions, not over the last alone.
    """

    items: Tensor  # [total], int64
    offsets: Tensor  # [n + 1], int64
    whole: bool

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """Items of each unit, the target included: [n]."""
        return self.offsets.diff()

    def take(self, index: Tensor) -> "Units":
        """The units at `index`, in its order."""
        parts = [self.items[self.offsets[i] : self.offsets[i + 1]] for i in index.tolist()]
        offsets = torch.cat([self.offsets.new_zeros(1), self.lengths[index].cumsum(0)])
        return Units(torch.cat(parts) if parts else self.items[:0], offsets, self.whole)


def make_units(sequences: Sequence[Sequence[int]], *, whole: bool) -> Units:
    """Units from sequences of at least two item indices, the target last."""
    lengths = torch.tensor([len(sequence) for sequence in sequences], dtype=torch.int64)
    if len(lengths) and int(lengths.min()) < 2:
        raise ValueError("a unit needs at least two items: one of history and the target")
    items = torch.tensor([item for sequence in sequences for item in sequence], dtype=torch.int64)
    return Units(items, torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]), whole)


def draw_negatives(units: Units, *, n_items: int, per_position: int, seed: int) -> Tensor:
    """Items that the unit does not hold, uniform over the catalogue: [total, per_position], item indices.

    Drawn for all units at once in their own order, so that they depend on the seed alone and not on any
    batching. A user who holds nearly the whole catalogue may, after 20 tries, get an item they hold.
    """
    generator = torch.Generator().manual_seed(seed)
    owner = torch.repeat_interleave(torch.arange(len(units)), units.lengths)
    unit_items = (owner * (n_items + 1) + units.items).unique()  # sorted keys
    negatives = torch.randint(1, n_items + 1, (len(units.items), per_position), generator=generator)
    for _ in range(20):
        keys = owner.unsqueeze(1) * (n_items + 1) + negatives
        place = torch.searchsorted(unit_items, keys).clamp_max(len(unit_items) - 1)
        clash = unit_items[place] == keys
        count = int(clash.sum())
        if not count:
            break
        negatives[clash] = torch.randint(1, n_items + 1, (count,), generator=generator)
    return negatives


@dataclass(frozen=True)
class Cloze:
    """hidden: which items the model has to fill in, [total]. index: of the item that stands in for them."""

    hidden: Tensor
    index: int


def draw_cloze(units: Units, *, index: int, share: float, seed: int) -> Cloze:
    """Hide each item with probability `share`, and each unit's target always: drawn for all units at once.

    Where the loss is over the last position alone, the target alone is hidden.
    """
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.rand(len(units.items), generator=generator) < (share if units.whole else 0.0)
    hidden[units.offsets[1:] - 1] = True
    return Cloze(hidden, index)


def plan(units: Units, *, batch_size: int, generator: torch.Generator | None = None) -> list[Tensor]:
    """Indices of units, batch by batch, alike in length; each once.

    With a generator, units of one length and the batches themselves are shuffled; without, both are in a fixed order,
    the longest first.
    """
    return [
        torch.tensor(batch)
        for batch in plan_batches(units.lengths.tolist(), batch_size=batch_size, generator=generator)
    ]


def plan_by_positions(units: Units, *, positions: int) -> list[Tensor]:
    """Indices of units, batch by batch: the longest first, each batch at most `positions` with its padding.

    A unit that is longer than that alone makes a batch of its own.
    """
    return [torch.tensor(batch) for batch in plan_batches(units.lengths.tolist(), batch_tokens=positions)]


def batch(
    units: Units, negatives: Tensor, index: Tensor, *, cloze: Cloze | None = None, device: torch.device | None = None
) -> Batch:
    """One padded batch of the units at `index`.

    T is the longest length less one: a position holds an item and its target is the next. With a cloze T is the
    longest length: the items are the whole unit, those that are hidden are the targets of their own positions.
    places: where the targets stand among all items, so that what is drawn for a position need not know its batch.
    """
    lengths = units.lengths[index] - int(cloze is None)
    columns = torch.arange(int(lengths.max()))
    real = columns < lengths.unsqueeze(1)  # [B, T]
    place = torch.where(real, units.offsets[index].unsqueeze(1) + columns, 0)
    items = torch.where(real, units.items[place], 0)
    if cloze is None:
        targeted = real if units.whole else real & (columns == (lengths - 1).unsqueeze(1))
        place = torch.where(real, place + 1, 0)
    else:
        targeted = real & cloze.hidden[place]
        items = torch.where(targeted, cloze.index, items)
    tensors = {
        "items": items,
        "targets": torch.where(real, units.items[place], 0),
        "negatives": torch.where(real.unsqueeze(2), negatives[place], 0),
        "weights": targeted / targeted.sum(1, keepdim=True),
        "places": place,
    }
    return {name: value.to(device) for name, value in tensors.items()}


@dataclass(frozen=True)
class Batches(Sequence[Batch]):
    """A re-iterable of batches: the same ones, in the same order, each time."""

    units: Units
    negatives: Tensor
    order: list[Tensor]
    cloze: Cloze | None = None
    device: torch.device | None = None
    after_each: Callable[[], None] = lambda: None

    def __iter__(self) -> Iterator[Batch]:
        for index in self.order:
            yield self._batch(index)
            self.after_each()

    def __getitem__(self, place: Any) -> Any:
        """The batch at an index, made when it is asked for."""
        self.after_each()
        return self._batch(self.order[place])

    def _batch(self, index: Tensor) -> Batch:
        return batch(self.units, self.negatives, index, cloze=self.cloze, device=self.device)

    def watched(self, after_each: Callable[[], None]) -> "Batches":
        """The same batches, with a call after each: for showing progress."""
        return replace(self, after_each=after_each)

    def only(self, index: Tensor) -> "Batches":
        """One batch of the units at `index` alone, with what was drawn for them: for the risk of a group."""
        return replace(self, order=[index])

    def __len__(self) -> int:
        return len(self.order)

    def largest(self) -> Batch:
        """The batch with the most positions, padding included: the one that takes the most memory."""
        return self._batch(max(self.order, key=lambda index: len(index) * int(self.units.lengths[index].max())))

    def restore_order(self, scores: Tensor) -> Tensor:
        """Scores in the order of the batches -> scores in the order of the units."""
        restored = torch.empty_like(scores)
        restored[torch.cat(self.order)] = scores
        return restored
