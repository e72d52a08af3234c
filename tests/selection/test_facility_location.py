"""Facility location against a greedy that computes every gain anew, and against the best of all subsets."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from dealrec.selection.facility_location import facility_location


def likeness(vectors: Tensor) -> Tensor:
    """[n, n]"""
    distances = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist").square()
    return (distances.mean() - distances).clamp_min(0)


def covered(alike: Tensor, rows: list[int]) -> float:
    return float(alike[rows].amax(0).mean()) if rows else 0.0


@pytest.mark.parametrize(("n", "budget"), [(1, 1), (7, 7), (40, 9), (90, 30)])
@pytest.mark.parametrize("lazy", [1, 5, 1000])
def test_lazy_gains_choose_as_all_gains_do(n: int, budget: int, lazy: int) -> None:
    vectors = torch.randn(n, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    alike, rows = likeness(vectors), list[int]()
    for _ in range(budget):
        rest = [row for row in range(n) if row not in rows]
        rows.append(max(rest, key=lambda row: covered(alike, [*rows, row])))
    taken, alone = facility_location(vectors, budget, block=16, lazy=lazy)
    assert len(set(taken.tolist())) == budget
    assert alone.tolist() == pytest.approx(alike.mean(1).tolist(), rel=1e-4, abs=1e-5)
    assert covered(alike, taken.tolist()) == pytest.approx(covered(alike, rows), rel=1e-4, abs=1e-6)


def test_it_comes_near_the_best_of_all_subsets() -> None:
    vectors = torch.randn(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alike = likeness(vectors)
    best = max(covered(alike, list(rows)) for rows in combinations(range(12), 4))
    assert covered(alike, facility_location(vectors, 4)[0].tolist()) >= (1 - 1 / torch.e) * best


def test_equal_vectors_are_all_taken_once() -> None:
    assert sorted(facility_location(torch.ones(5, 3), 9)[0].tolist()) == [0, 1, 2, 3, 4]
