"""Small models of every kind with weights that make everything matter, and batches that go with them."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from dealrec.surrogate import (
    MF,
    Batches,
    BERT4Rec,
    GRU4Rec,
    Negatives,
    SASRec,
    Surrogate,
    Units,
    draw_cloze,
    make_units,
    plan,
)

N_ITEMS = 9
MAX_LENGTH = 8
KINDS = ("sasrec", "gru4rec", "bert4rec", "mf")
CAUSAL = ("sasrec", "gru4rec", "mf")
LOSSES = ("bce", "sampled-softmax", "softmax")

every_kind = pytest.mark.parametrize("kind", KINDS)
every_causal_kind = pytest.mark.parametrize("kind", CAUSAL)
every_loss = pytest.mark.parametrize("loss", LOSSES)


def drawn(
    kind: str, *, dim: int = 4, layers: int = 1, n_items: int = N_ITEMS, max_length: int = MAX_LENGTH
) -> Surrogate:
    """A model in float64 and eval mode, all its weights far from where they begin."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = made(kind, dim=dim, layers=layers, n_items=n_items, max_length=max_length).double()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def made(
    kind: str, *, dim: int = 16, layers: int = 1, n_items: int = N_ITEMS, max_length: int = MAX_LENGTH
) -> Surrogate:
    """A model as it begins."""
    if kind == "mf":
        return MF(n_items, dim=dim, max_length=max_length, dropout=0.1)
    if kind == "gru4rec":
        return GRU4Rec(n_items, dim=dim, layers=layers, max_length=max_length, dropout=0.1)
    transformer = {"sasrec": SASRec, "bert4rec": BERT4Rec}[kind]
    return transformer(n_items, dim=dim, layers=layers, heads=2, max_length=max_length, dropout=0.1)


def batches_of(
    model: Surrogate,
    units: Units,
    *,
    size: int = 3,
    per_position: int = 2,
    share: bool = False,
    order: list[Tensor] | None = None,
) -> Batches:
    """Batches with negatives, and hidden items where the model fills them in, drawn for the units alone."""
    negatives = Negatives(model.n_items, per_position, 5, share)
    cloze = None
    if model.hidden_item is not None:
        cloze = draw_cloze(units, index=model.hidden_item, share=0.4, seed=5)
    return Batches(units, negatives, plan(units, batch_size=size) if order is None else order, cloze)


def drawn_for(units: Units, negatives: Negatives) -> Tensor:
    """The negatives of every position of every unit: [total, N]."""
    rows = torch.repeat_interleave(torch.arange(len(units)), units.lengths)
    return negatives.of(units, rows, torch.arange(len(units.items)) - units.offsets[rows])


class Given(Negatives):
    """In the place of drawn negatives one for each place among the items of all units: [total]."""

    at: tuple[Tensor, Units]

    def __init__(self, items: Tensor, units: Units) -> None:
        super().__init__(0, 1, 0)
        object.__setattr__(self, "at", (items, units))

    def of(self, units: Units, rows: Tensor, positions: Tensor) -> Tensor:
        items, everyone = self.at
        return items[everyone.offsets[units.keys[rows]] + positions].unsqueeze(1)


def padded(sequences: Sequence[Sequence[int]], *, extra: int = 0) -> tuple[Tensor, Tensor]:
    """Items [B, T], padded on the right, and their lengths [B]."""
    rows = [torch.tensor(sequence) for sequence in sequences]
    items = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return torch.nn.functional.pad(items, (0, extra)), torch.tensor([len(row) for row in rows])


def some_units(*, whole: bool) -> Units:
    """Units of mixed lengths, with items that occur twice."""
    return make_units([[1, 2, 3, 4, 5], [6, 7], [3, 1, 4], [2, 2, 8, 1], [9, 5, 4, 3, 2, 1, 6]], whole=whole)
