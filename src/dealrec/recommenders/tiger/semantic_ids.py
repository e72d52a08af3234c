"""Semantic ids: every item of the catalogue as a tuple of codes of its own, and the tokens that spell it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

PAD, EOS, FIRST_CODE = 0, 1, 2  # tokens; the codes follow, level by level


@dataclass(frozen=True)
class SemanticIds:
    """codes: [n, L], int64, one unique tuple a row of the catalogue. sizes: how many codes each level has.

    The vocabulary is padding, the end of a history, and a token for each (level, code). Raises ValueError if two
    items share a tuple or a code is outside its level.
    """

    codes: Tensor
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.codes.ndim != 2 or self.codes.shape[1] != len(self.sizes):
            raise ValueError(f"codes of shape {tuple(self.codes.shape)} do not go with {len(self.sizes)} levels")
        if len(self.codes) and bool(((self.codes < 0) | (self.codes >= torch.tensor(self.sizes))).any()):
            raise ValueError(f"a code is outside its level; levels have {self.sizes} codes")
        if len(self.codes.unique(dim=0)) != len(self.codes):
            raise ValueError("two items share a semantic id")

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def vocab_size(self) -> int:
        """Tokens that there are."""
        return FIRST_CODE + sum(self.sizes)

    @cached_property
    def tokens(self) -> Tensor:
        """The tokens that spell each item: [n, L], int64. Levels share no token."""
        starts = torch.tensor([0, *self.sizes[:-1]]).cumsum(0) + FIRST_CODE
        return self.codes + starts

    def rows(self, tokens: Sequence[Sequence[int]]) -> list[int]:
        """The item that each tuple of tokens spells, -1 where there is none."""
        return [self._row.get(tuple(codes), -1) for codes in tokens]

    @cached_property
    def _row(self) -> dict[tuple[int, ...], int]:
        return {tuple(codes): row for row, codes in enumerate(self.tokens.tolist())}


def make_semantic_ids(codes: Tensor, *, codes_per_level: int, known: Tensor | None = None) -> SemanticIds:
    """Semantic ids from codes [n, levels]: one more code tells apart the items that share theirs.

    It is 0 for the first item of a tuple, 1 for the next, in the order of the catalogue; items that are `known`
    (bool [n]: those of the training part) come before the others, so that no cold item changes a known one's id.
    """
    known = torch.ones(len(codes), dtype=torch.bool) if known is None else known
    turn = (~known).long().argsort(stable=True)
    group = codes.unique(dim=0, return_inverse=True)[1] if len(codes) else codes.new_empty(0)
    order = turn[group[turn].argsort(stable=True)]  # groups together, known items first in each
    counts = group.bincount()
    starts = counts.cumsum(0) - counts
    extra = torch.empty(len(codes), dtype=torch.int64)
    extra[order] = torch.arange(len(codes)) - starts[group[order]]
    sizes = (codes_per_level,) * codes.shape[1] + (int(extra.max()) + 1 if len(extra) else 1,)
    return SemanticIds(torch.cat([codes, extra.unsqueeze(1)], 1), sizes)
