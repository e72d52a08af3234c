"""The best of each group, against a walk spelt out."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dealrec.errors import NonFinite
from dealrec.selection import banded_quota_sample, quota_sample


def walk(scores: list[float], groups: list[int], shares: dict[int, float], budget: int, least: int = 1) -> list[int]:
    """The definition: from the top down under caps; unfilled, the caps are raised and the walk begins anew."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    raised = 0
    while True:
        counts: dict[int, int] = {}
        chosen: list[int] = []
        for i in order:
            cap = max(least, math.ceil(budget * shares.get(groups[i], 0.0) - 1e-9)) + raised
            if len(chosen) < budget and counts.get(groups[i], 0) < cap:
                chosen.append(i)
                counts[groups[i]] = counts.get(groups[i], 0) + 1
        if len(chosen) == min(budget, len(scores)):
            return chosen
        raised += 1


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 4)), min_size=1, max_size=30),
    st.dictionaries(st.integers(0, 5), st.floats(0, 1), max_size=4),
    st.integers(0, 35),
    st.integers(0, 2),
)
def test_it_is_the_walk(rows: list[tuple[int, int]], shares: dict[int, float], budget: int, least: int) -> None:
    scores, groups = [float(score) for score, _ in rows], [group for _, group in rows]
    chosen = quota_sample(torch.tensor(scores), torch.tensor(groups), shares, budget, least=least)
    assert chosen.tolist() == (walk(scores, groups, shares, budget, least) if budget else [])


def test_validation_says_how_many_and_the_scores_which() -> None:
    scores = torch.tensor([9.0, 8.0, 7.0, 6.0, 5.0, 4.0])
    groups = torch.tensor([1, 1, 1, 2, 2, 3])
    # Budget 4: caps ceil(4 * 0.5) = 2 of group 1, ceil(4 * 0.25) = 1 of group 2, at least 1 of group 3.
    assert quota_sample(scores, groups, {1: 0.5, 2: 0.25}, 4).tolist() == [0, 1, 3, 5]


def test_many_scores_of_many_groups() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, groups = torch.rand(20_000, generator=generator), torch.randint(2_000, (20_000,), generator=generator)
    chosen = quota_sample(scores, groups, {0: 0.5, 7: 0.002}, 5_000)
    assert chosen.tolist() == walk(scores.tolist(), groups.tolist(), {0: 0.5, 7: 0.002}, 5_000)


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 4)), min_size=1, max_size=30),
    st.dictionaries(st.integers(0, 5), st.integers(0, 8), max_size=4),
    st.dictionaries(st.integers(0, 5), st.integers(0, 3), max_size=6),
    st.integers(0, 35),
    st.sampled_from([1, 2, 4]),
)
def test_bands_are_walks_of_their_own(
    rows: list[tuple[int, int]], eighths: dict[int, int], popularity: dict[int, float], budget: int, bands: int
) -> None:
    """Against the definition, spelt out: the walk within each band, and once more among what is left."""
    scores, groups = [float(score) for score, _ in rows], [group for _, group in rows]
    shares = {name: share / 8 for name, share in eighths.items()}
    popular = {name: popularity.get(name, 0.0) for name in set(groups)}
    total = sum(shares.get(name, 0.0) for name in popular) or 1.0
    band_of: dict[int, int] = {}
    of_bands, before = [0.0] * bands, 0.0
    for level in sorted(set(popular.values())):
        alike = [name for name in popular if popular[name] == level]
        share = sum(shares.get(name, 0.0) for name in alike)
        band = min(bands - 1, int((before + share / 2) / total * bands))
        before, of_bands[band] = before + share, of_bands[band] + share
        band_of |= dict.fromkeys(alike, band)
    chosen: list[int] = []

    def take(among: list[int], asked: dict[int, float], count: int) -> None:
        if count > 0 and among:
            places = walk([scores[i] for i in among], [groups[i] for i in among], asked, count, least=0)
            chosen.extend(among[place] for place in places)

    for band in range(bands):
        start, end = (round(budget * sum(of_bands[:upto]) / total) for upto in (band, band + 1))
        within = {name: share / of_bands[band] for name, share in shares.items()} if end > start else {}
        take([i for i in range(len(scores)) if band_of[groups[i]] == band], within, end - start)
    take([i for i in range(len(scores)) if i not in chosen], shares, budget - len(chosen))
    drawn = banded_quota_sample(torch.tensor(scores), torch.tensor(groups), shares, popularity, budget, bands=bands)
    assert drawn.tolist() == sorted(chosen, key=lambda i: (-scores[i], i))
    assert len(set(drawn.tolist())) == min(budget, len(scores))


def test_popular_targets_get_what_validation_has_of_them() -> None:
    """Ten rare targets with high scores, one popular with low ones; validation has half of each."""
    scores = torch.cat([torch.arange(10.0) + 100, torch.arange(10.0)])
    groups = torch.tensor([*range(10), *[10] * 10])
    shares = dict.fromkeys(range(10), 0.05) | {10: 0.5}
    chosen = banded_quota_sample(scores, groups, shares, {10: 0.5}, 6, bands=2)
    assert chosen.tolist() == [9, 8, 7, 19, 18, 17]
    assert quota_sample(scores, groups, shares, 6).tolist() == [9, 8, 7, 6, 5, 4]


def test_what_validation_lacks_comes_last() -> None:
    scores, groups, known = torch.tensor([9.0, 8.0, 7.0, 6.0]), torch.tensor([1, 2, 3, 3]), {1: 0.2, 2: 0.2, 3: 0.2}
    assert banded_quota_sample(scores, groups, {2: 0.1, 3: 0.2}, known, 3).tolist() == [1, 2, 3]
    assert banded_quota_sample(scores, groups, {2: 0.1, 3: 0.2}, known, 4).tolist() == [0, 1, 2, 3]


def test_what_is_no_score_is_refused() -> None:
    with pytest.raises(NonFinite, match="the score is NaN"):
        quota_sample(torch.tensor([1.0, float("nan")]), torch.tensor([0, 0]), {}, 1)
    with pytest.raises(ValueError, match="must be"):
        quota_sample(torch.ones(2), torch.ones(3, dtype=torch.int64), {}, 1)
    with pytest.raises(ValueError, match="must be"):
        banded_quota_sample(torch.ones(2), torch.ones(3, dtype=torch.int64), {}, {}, 1)
    with pytest.raises(ValueError, match="bands must be"):
        banded_quota_sample(torch.ones(2), torch.ones(2, dtype=torch.int64), {}, {}, 1, bands=0)
    with pytest.raises(NonFinite, match="the score is NaN"):
        banded_quota_sample(torch.tensor([1.0, float("nan")]), torch.tensor([0, 0]), {}, {}, 1)
