"""Training units: what the surrogate's loss is a mean over, and what influence removes.

With one sample per user a unit is the user's whole training sequence, its loss the mean over the sequence's
positions, the LLM's target included. With N samples per user each sample is a unit of its own, its loss
that of its last position. Nothing is trained on that is not a unit.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl
import torch
from torch import Tensor

from dealrec.sequences.batches import plan_indices

# items, targets, places [B, T]; negatives [B, T, N], of the positions with a weight, or [B, 1, N], of all of a unit's;
# weights [B, T], rows sum to 1
Batch = dict[str, Tensor]
HELD = 2**25  # numbers, at most, for which batches are kept: 256 MiB


@dataclass(frozen=True)
class Units:
    """n sequences of item indices (1-based), end to end: unit i is `items[offsets[i] : offsets[i + 1]]`.

    The last item is the unit's target. whole: the loss is over all positions, not over the last alone.
    """

    items: Tensor  # [total], int64
    offsets: Tensor  # [n + 1], int64
    keys: Tensor  # [n], int64: what is drawn for a unit follows from its key
    whole: bool

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """Items of each unit, the target included: [n]."""
        return self.offsets.diff()

    def take(self, index: Tensor) -> "Units":
        """The units at `index`, in its order; what is drawn for them stays what it is among all."""
        lengths = self.lengths[index]
        offsets = torch.cat([self.offsets.new_zeros(1), lengths.cumsum(0)])
        place = torch.arange(int(offsets[-1])) + torch.repeat_interleave(self.offsets[index] - offsets[:-1], lengths)
        return Units(self.items[place], offsets, self.keys[index], self.whole)


def make_units(sequences: pl.Series | Sequence[Sequence[int]], *, whole: bool) -> Units:
    """Units from sequences of at least two item indices, the target last; a Series holds a list a row."""
    lists = sequences if isinstance(sequences, pl.Series) else pl.Series(sequences, dtype=pl.List(pl.Int64))
    lengths = lists.list.len().cast(pl.Int64).to_torch()
    if len(lengths) and int(lengths.min()) < 2:
        raise ValueError("a unit needs at least two items: one of history and the target")
    items = lists.explode().to_torch() if len(lists) else lengths
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return Units(items, offsets, torch.arange(len(lengths)), whole)


def uniform(counters: Tensor, *, seed: int) -> Tensor:
    """Numbers in [0, 1) that follow from a counter and the seed alone, float64 (SplitMix64, Steele et al., 2014)."""
    z = (counters * 2 + 1) * -7046029254386353131  # 0x9E3779B97F4A7C15; products wrap around
    z += (seed * 1_000_003 + 2**63) % 2**64 - 2**63
    z ^= (z >> 30) & (2**34 - 1)
    z *= -4658895280553007687  # 0xBF58476D1CE4E5B9
    z ^= (z >> 27) & (2**37 - 1)
    z *= -7723592293110705685  # 0x94D049BB133111EB
    z ^= (z >> 31) & (2**33 - 1)
    return ((z >> 11) & (2**53 - 1)).double() * 2.0**-53


@dataclass(frozen=True)
class Negatives:
    """Items that a unit does not hold, `per_position` for each of its positions, uniform over the catalogue.

    share: all positions of a unit have the same, so that a batch takes one product of states and items; one alone
    (per_position 1) is each position's own all the same, as SASRec is published. They follow from the seed, the unit's
    key and the position alone: not from the batch that they are drawn in, nor from which other units there are. Nothing
    is held: a batch's are drawn when it is made.
    """

    n_items: int
    per_position: int
    seed: int
    share: bool = False

    @property
    def shared(self) -> bool:
        """Whether what is drawn for a unit holds at all its positions."""
        return self.share and self.per_position > 1

    def of(self, units: Units, rows: Tensor, positions: Tensor) -> Tensor:
        """[P, per_position] item indices, for `positions` [P], from 0, in the units at `rows` [P].

        A user who holds nearly the whole catalogue may, after 20 tries, get an item they hold.
        """
        positions = torch.zeros_like(positions) if self.shared else positions
        size, width = self.n_items + 1, self.per_position
        owner = torch.repeat_interleave(torch.arange(len(units)), units.lengths)
        held = (owner * size + units.items).unique()  # sorted
        counters = (units.keys[rows] * 2**20 + positions).repeat_interleave(width) * width
        counters += torch.arange(width).repeat(len(rows))
        owners, drawn = rows.repeat_interleave(width) * size, self._drawn(counters, 0)
        clash = _among(held, owners + drawn)
        for attempt in range(1, 20):
            if not len(clash):
                break
            drawn[clash] = self._drawn(counters[clash], attempt)
            clash = clash[_among(held, owners[clash] + drawn[clash])]
        return drawn.view(len(rows), width)

    def room(self, units: Units) -> int:
        """How many numbers batches of the units hold, padding apart, with room for negatives at every position."""
        positions = len(units.items)
        return 4 * positions + (len(units) if self.shared else positions) * self.per_position

    def _drawn(self, counters: Tensor, attempt: int) -> Tensor:
        return (uniform(counters, seed=self.seed + attempt * 2**40) * self.n_items).long() + 1


def _among(held: Tensor, keys: Tensor) -> Tensor:
    """Where the keys are that are among those held, which are sorted: indices."""
    place = torch.searchsorted(held, keys).clamp_max_(len(held) - 1)
    return (held[place] == keys).nonzero().flatten()


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
    return plan_indices(units.lengths, batch_size=batch_size, generator=generator)


def plan_by_positions(units: Units, *, positions: int) -> list[Tensor]:
    """Indices of units, batch by batch: the longest first, each batch at most `positions` with its padding.

    A unit that is longer than that alone makes a batch of its own.
    """
    return plan_indices(units.lengths, batch_tokens=positions)


def padded_places(first: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Of runs that begin at `first` [B]: which positions are theirs, and where each stands, 0 for padding: [B, T]."""
    columns = torch.arange(int(lengths.max()))
    real = columns < lengths.unsqueeze(1)
    return real, torch.where(real, first.unsqueeze(1) + columns, 0)


def batch(
    units: Units, negatives: Negatives, index: Tensor, *, cloze: Cloze | None = None, device: torch.device | None = None
) -> Batch:
    """One padded batch of the units at `index`.

    T is the longest length less one: a position holds an item and its target is the next. With a cloze T is the
    longest length: the items are the whole unit, those that are hidden are the targets of their own positions.
    places: where the targets stand among all items, so that what is drawn for a position need not know its batch.
    """
    first, lengths = units.offsets[index], units.lengths[index] - int(cloze is None)
    real, place = padded_places(first, lengths)
    items = torch.where(real, units.items[place], 0)
    if cloze is None:
        targeted = real if units.whole else real & (place == (first + lengths - 1).unsqueeze(1))
        place = torch.where(real, place + 1, 0)
    else:
        targeted = real & cloze.hidden[place]
        items = torch.where(targeted, cloze.index, items)
    asked = torch.ones(len(index), 1, dtype=torch.bool) if negatives.shared else targeted
    drawn = torch.zeros(*asked.shape, negatives.per_position, dtype=torch.int64)
    positions = (place - first.unsqueeze(1))[:, : asked.shape[1]][asked]
    drawn[asked] = negatives.of(units.take(index), asked.nonzero()[:, 0], positions)
    tensors = {
        "items": items,
        "targets": torch.where(real, units.items[place], 0),
        "negatives": drawn,
        "weights": targeted / targeted.sum(1, keepdim=True),
        "places": place,
    }
    return {name: value.to(device) for name, value in tensors.items()}


@dataclass(frozen=True)
class Batches(Sequence[Batch]):
    """A re-iterable of batches: the same ones, in the same order, each time."""

    units: Units
    negatives: Negatives
    order: list[Tensor]
    cloze: Cloze | None = None
    device: torch.device | None = None
    after_each: Callable[[], None] = lambda: None
    kept: dict[int, Batch] = field(default_factory=dict, repr=False, compare=False)

    def __iter__(self) -> Iterator[Batch]:
        for number in range(len(self.order)):
            yield self._batch(number)
            self.after_each()

    def __getitem__(self, place: Any) -> Any:
        """The batch at an index, made when it is asked for."""
        self.after_each()
        return self._batch(place)

    def _batch(self, number: int) -> Batch:
        """Solvers go through all batches dozens of times: where they are few, each is made once."""
        if number in self.kept:
            return self.kept[number]
        made = batch(self.units, self.negatives, self.order[number], cloze=self.cloze, device=self.device)
        if self.negatives.room(self.units) <= HELD:
            self.kept[number] = made
        return made

    def watched(self, after_each: Callable[[], None]) -> "Batches":
        """The same batches, with a call after each: for showing progress."""
        return replace(self, after_each=after_each)

    def only(self, index: Tensor) -> "Batches":
        """One batch of the units at `index` alone, with what was drawn for them: for the risk of a group."""
        return replace(self, order=[index], kept={})

    def __len__(self) -> int:
        return len(self.order)

    def largest(self) -> list[Batch]:
        """The batches with the most positions, padding included, and with the most units: one takes the most memory."""
        positions = [len(index) * int(self.units.lengths[index].max()) for index in self.order]
        units = [len(index) for index in self.order]
        return [self._batch(number) for number in {positions.index(max(positions)), units.index(max(units))}]

    def restore_order(self, scores: Tensor) -> Tensor:
        """Scores in the order of the batches -> scores in the order of the units."""
        restored = torch.empty_like(scores)
        restored[torch.cat(self.order)] = scores
        return restored
