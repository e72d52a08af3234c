"""The rank of one item among all by distance, exactly, while the catalogue passes by in blocks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dealrec.recommenders.bigrec.grounding import offer_all, score_of
from dealrec.recommenders.bigrec.least import Pairs, Score, score_bounds, squared_distances


@torch.inference_mode()
def target_ranks(
    queries: Tensor,
    items: Iterable[Tensor],
    *,
    targets: Sequence[int | None],
    seen: Sequence[Sequence[int]],
    counts: Tensor | None = None,
    popularity_weight: float = 0.0,
    chunk: int = 64,
) -> list[int]:
    """The rank, from 1, of each query's target among the rows of the catalogue that are not `seen`.

    It is the target's place in what `ground` gives for a k of all items; queries, items and the rest are as there.
    targets: rows; one that is None or seen is behind all others. The items are gone through twice, or three times with
    a popularity_weight.
    """
    if not len(queries) == len(targets) == len(seen):
        raise ValueError(f"{len(queries)} queries but {len(targets)} targets and {len(seen)} lists of seen items")
    excluded = [set(rows) for rows in seen]
    ranked = [row is not None and row not in rows for row, rows in zip(targets, excluded, strict=True)]
    rows = torch.tensor([-1 if row is None else row for row in targets], dtype=torch.int64)
    rows[~torch.tensor(ranked, dtype=torch.bool)] = -1
    squares, n = _target_squares(queries.double(), items, rows)
    score = score_of(queries, items, counts=counts, popularity_weight=popularity_weight, chunk=chunk)
    if score is None:
        return [1] * len(queries)
    own = torch.full((len(queries),), -torch.inf, dtype=torch.float64)
    users = (rows >= 0).nonzero().squeeze(1)
    own[users] = score(squares[users], users, rows[users])
    ahead = _Ahead(rows, own, score, Pairs.of(seen))
    offer_all(queries, items, [ahead], chunk=chunk)
    last = (n - len(rows_) for rows_ in excluded)
    places = zip(ranked, ahead.counts.tolist(), last, strict=True)
    return [1 + (count if is_ranked else behind) for is_ranked, count, behind in places]


def _target_squares(queries: Tensor, items: Iterable[Tensor], rows: Tensor) -> tuple[Tensor, int]:
    """Squared distance of each query to its row, [U], where that is not -1; how many rows there are."""
    squares, start = torch.zeros(len(queries), dtype=torch.float64), 0
    for block in items:
        users = ((rows >= start) & (rows < start + len(block))).nonzero().squeeze(1)
        squares[users] = squared_distances(queries, block.double(), users, rows[users] - start)
        start += len(block)
    return squares, start


@dataclass
class _Ahead:
    """How many items come before each query's target.

    targets: rows, -1 without; own: their scores, [U], minus infinity without. excluded: pairs that do not count.
    """

    targets: Tensor
    own: Tensor
    score_of: Score
    excluded: Pairs
    counts: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.counts = torch.zeros(len(self.targets), dtype=torch.int64)

    def candidates(self, rough: Tensor, error: Tensor, *, first: int, start: int) -> Pairs:
        """Pairs that may be on either side of the target; what is certainly before it is counted."""
        part = slice(first, first + len(rough))
        low, high = score_bounds(rough, error, self.score_of, self.excluded, first=first, start=start)
        own = self.own[part].unsqueeze(1)
        self.counts[part] += (high < own).sum(1)
        user, row = ((low <= own) & (high >= own)).nonzero(as_tuple=True)
        return Pairs(user + first, row + start)

    def offer(self, pairs: Pairs, squares: Tensor) -> None:
        """Count those that are before the target."""
        scores, own = self.score_of(squares, pairs.users, pairs.rows), self.own[pairs.users]
        before = (scores < own) | ((scores == own) & (pairs.rows < self.targets[pairs.users]))
        self.counts.index_add_(0, pairs.users, before.long())

    def settle(self) -> None:
        """Nothing waits."""
