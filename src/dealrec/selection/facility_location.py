"""Facility location: the few that every candidate has one like it among."""

import torch
from torch import Tensor


def facility_location(vectors: Tensor, budget: int, *, block: int = 1024, lazy: int = 32) -> tuple[Tensor, Tensor]:
    """Indices of exactly min(budget, n), in the order in which they are taken, and what each of all adds alone: [n].

    vectors: [n, d]. What is maximised is the mean over all of their likeness to the nearest that is taken, likeness
    being the mean squared distance of two less that of these two, at least 0. Greedy, which comes within 1 - 1/e of the
    best (Nemhauser et al., 1978); lazily, as no gain rises (Minoux, 1978): the largest gains that are known, `lazy` at
    a time, are computed again, until the largest of all is a new one. No [n, n] matrix is held, but `block` rows of
    one, in float32. Time: n^2 d for the first gains, then n d for each that is computed again.
    """
    vectors = (vectors - vectors.mean(0)).float()
    squares = vectors.square().sum(1)
    scale = 2 * squares.mean()
    nearest = torch.zeros(len(vectors))  # likeness of each to what is taken

    def likeness(rows: Tensor) -> Tensor:  # [rows, n]
        distances = squares[rows].unsqueeze(1) + squares - 2 * vectors[rows] @ vectors.T
        return (scale - distances.clamp_min(0)).clamp_min(0)

    def gains(rows: Tensor) -> Tensor:
        return (likeness(rows) - nearest).clamp_min(0).mean(1)

    count = min(budget, len(vectors))
    alone = torch.cat([gains(rows) for rows in torch.arange(len(vectors)).split(block)])
    if count == len(vectors):  # nothing to choose
        return alone.argsort(descending=True, stable=True), alone
    known = alone.clone()
    computed = torch.zeros(len(vectors), dtype=torch.int64)  # after how many were taken
    selection = torch.empty(count, dtype=torch.int64)
    for place in range(count):
        while computed[row := int(known.argmax())] < place:
            rows = torch.cat([torch.tensor([row]), known.topk(min(lazy, len(vectors) - place)).indices]).unique()
            known[rows], computed[rows] = gains(rows), place
        selection[place] = row
        nearest = torch.maximum(nearest, likeness(selection[place : place + 1])[0])
        known[row] = -torch.inf
    return selection, alone
