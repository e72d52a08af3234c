"""The k least scores of each query, kept while a catalogue passes by in blocks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

Score = Callable[[Tensor, Tensor, Tensor], Tensor]  # squared distances, queries and rows, which broadcast -> scores
_CHUNK = 2**22  # numbers of candidates that are written out at a time
_MAX_WAITING = 2**20  # candidates that wait


@dataclass(frozen=True)
class Pairs:
    """Queries and rows of the catalogue: users [P], rows [P]."""

    users: Tensor
    rows: Tensor

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "Pairs":
        """From the rows of each query; sorted by row."""
        users = torch.tensor([user for user, query_rows in enumerate(rows) for _ in query_rows], dtype=torch.int64)
        flat = torch.tensor([row for query_rows in rows for row in query_rows], dtype=torch.int64)
        order = flat.argsort(stable=True)
        return cls(users[order], flat[order])

    def among(self, users: range, rows: range) -> tuple[Tensor, Tensor]:
        """Those within both, counted from the first of each."""
        start, end = torch.searchsorted(self.rows, torch.tensor([rows.start, rows.stop])).tolist()
        pair_users, pair_rows = self.users[start:end], self.rows[start:end]
        inside = (pair_users >= users.start) & (pair_users < users.stop)
        return pair_users[inside] - users.start, pair_rows[inside] - rows.start


NONE = Pairs.of([])


def score_bounds(
    rough: Tensor, error: Tensor, score_of: Score, excluded: Pairs, *, first: int, start: int
) -> tuple[Tensor, Tensor]:
    """The least and the largest that each score can be, [C, b] both; infinity for pairs that are excluded.

    rough: squared distances [C, b] from query `first` and row `start` on, each off by at most `error` [C, 1].
    score_of: rises or falls with the distance.
    """
    users = torch.arange(first, first + len(rough)).unsqueeze(1)
    rows = torch.arange(start, start + rough.shape[1]).unsqueeze(0)
    ends = score_of(rough - error, users, rows), score_of(rough + error, users, rows)
    low, high = torch.minimum(*ends), torch.maximum(*ends)
    pairs = excluded.among(range(first, first + len(rough)), range(start, start + rough.shape[1]))
    low[pairs] = high[pairs] = torch.inf
    return low, high


@dataclass
class Least:
    """The k least scores of each of `queries` queries; ties to the lower row.

    score_of: rises or falls with the distance. excluded: pairs that do not count. The least so far: users, items
    (rows of the catalogue) and score, [M] each, by query and then by score.
    """

    queries: int
    k: int
    score_of: Score
    excluded: Pairs = NONE
    users: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    items: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    score: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))

    def __post_init__(self) -> None:
        self.bound = torch.full((self.queries,), torch.inf, dtype=torch.float64)  # the k-th least so far
        self.offers: list[tuple[Tensor, Tensor, Tensor]] = []

    def candidates(self, rough: Tensor, error: Tensor, *, first: int, start: int) -> Pairs:
        """Pairs that can be among the least; the rest as `score_bounds` has it."""
        low, high = score_bounds(rough, error, self.score_of, self.excluded, first=first, start=start)
        k = min(self.k, rough.shape[1])
        if k < 1:
            return NONE
        # k items of this block score at most this, and k of the earlier blocks at most `bound`.
        bound = torch.minimum(high.topk(k, largest=False).values[:, -1], self.bound[first : first + len(rough)])
        if k < self.k:
            bound = self.bound[first : first + len(rough)]
        user, row = ((low <= bound.unsqueeze(1)) & (low < torch.inf)).nonzero(as_tuple=True)
        return Pairs(user + first, row + start)

    def offer(self, pairs: Pairs, squares: Tensor) -> None:
        """Candidates with their squared distances [P]; of each query in the order of rows. They count once settled."""
        scores = self.score_of(squares, pairs.users, pairs.rows)
        better = scores < self.bound[pairs.users]  # of a tie the earlier row is there already
        self.offers.append((pairs.users[better], pairs.rows[better], scores[better]))
        if sum(len(part) for part, _, _ in self.offers) > _MAX_WAITING:
            self.settle()

    def settle(self) -> None:
        """Keep the k least of what was and what was offered."""
        parts = zip((self.users, self.items, self.score), *self.offers, strict=True)
        users, rows, scores = (torch.cat(part) for part in parts)
        self.offers.clear()
        order = torch.from_numpy(np.lexsort((rows.numpy(), scores.numpy(), users.numpy())))
        users, rows, scores = users[order], rows[order], scores[order]
        place = torch.arange(len(users)) - torch.searchsorted(users, users)  # among the query's own
        nearest = place < self.k
        self.users, self.items, self.score = users[nearest], rows[nearest], scores[nearest]
        last = place[nearest] == self.k - 1
        self.bound[self.users[last]] = self.score[last]

    def rows(self) -> list[list[int]]:
        """Rows of each query, the least score first."""
        counts = torch.bincount(self.users, minlength=self.queries).tolist()
        return [part.tolist() for part in self.items.split(counts)] if self.queries else []


def squared_distances(queries: Tensor, items: Tensor, users: Tensor, rows: Tensor) -> Tensor:
    """|queries[user] - items[row]|^2 of each pair: [P], float64.

    It depends on the two vectors alone, to the last bit, not on the other pairs: terms are added element by element
    in halves, where a sum or a matrix product would choose an order by the shape.
    """
    step = max(1, _CHUNK // max(1, queries.shape[1]))
    parts = [
        _sum_by_halves((queries[user] - items[row]).square())
        for user, row in zip(users.split(step), rows.split(step), strict=True)
    ]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)


def _sum_by_halves(terms: Tensor) -> Tensor:
    """Sum of each row of [P, D]."""
    while terms.shape[1] > 1:
        half = terms.shape[1] // 2
        odd = terms[:, 2 * half :]  # of an odd number the last one
        terms = torch.cat([terms[:, :half] + terms[:, half : 2 * half], odd], 1)
    return terms[:, 0]
