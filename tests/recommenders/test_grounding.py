"""Grounding: a catalogue in blocks gives what a plain sort of all distances gives, to the last tie."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dealrec.errors import NonFinite
from dealrec.recommenders.bigrec import BIGRec, Prompter, embed, ground, target_ranks
from dealrec.recommenders.bigrec.files import write_blocks
from dealrec.recommenders.bigrec.least import squared_distances
from dealrec.recommenders.bigrec.model import load_llm


@pytest.fixture(scope="module")
def llm(tiny_llm: Path) -> tuple[Any, Any]:
    return load_llm(str(tiny_llm))


def all_at_once(
    queries: Tensor,
    items: Tensor,
    *,
    seen: Sequence[Sequence[int]],
    k: int,
    counts: Tensor | None = None,
    popularity_weight: float = 0.0,
) -> list[list[int]]:
    """The slow twin: every distance, one by one, and a stable sort."""
    ranked = []
    for query, left_out in zip(queries.double(), seen, strict=True):
        scores = torch.stack([(query - item).square().sum() for item in items.double()])
        if counts is not None and popularity_weight:
            scores = scaled(scores.sqrt()) / (1 + scaled(counts.double())) ** popularity_weight
        ranked.append([row for row in scores.argsort(stable=True).tolist() if row not in left_out][:k])
    return ranked


def scaled(values: Tensor) -> Tensor:
    span = values.max() - values.min()
    return (values - values.min()) / span if span else torch.zeros_like(values)


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(st.data())
def test_grounding_equals_a_plain_sort_for_any_blocks(data: st.DataObject) -> None:
    users, n, k = data.draw(st.integers(0, 5)), data.draw(st.integers(1, 12)), data.draw(st.integers(0, 14))
    number = st.integers(-3, 3).map(float)  # so few values that ties abound, and every sum is exact
    rows = st.lists(number, min_size=3, max_size=3)
    queries = torch.tensor(data.draw(st.lists(rows, min_size=users, max_size=users))).reshape(users, 3)
    items = torch.tensor(data.draw(st.lists(rows, min_size=n, max_size=n)))
    seen = data.draw(st.lists(st.lists(st.integers(0, n - 1), max_size=n), min_size=users, max_size=users))
    counts = torch.tensor(data.draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)))
    options: dict[str, Any] = {
        "seen": seen,
        "k": k,
        "counts": counts,
        "popularity_weight": data.draw(st.sampled_from([0.0, 1.0])),
    }
    blocks, chunk = items.split(data.draw(st.integers(1, n))), data.draw(st.integers(1, 5))
    assert ground(queries, blocks, **options, chunk=chunk) == all_at_once(queries, items, **options)


@pytest.mark.slow
@pytest.mark.parametrize("popularity_weight", [0.0, 0.7])
def test_items_that_are_equal_stay_in_order_where_matrix_products_differ(popularity_weight: float) -> None:
    draw = torch.Generator().manual_seed(0)
    items = torch.randn(400, 97, generator=draw) + 5  # far from 0: the products cancel
    items[200:300] = items[:100]
    queries = items[50:82] + 1e-4 * torch.randn(32, 97, generator=draw)
    whole, parts = (queries @ items.T)[:, 3:136], queries @ items[3:136].T
    options: dict[str, Any] = {
        "seen": [[row] for row in range(32)],
        "k": 30,
        "counts": torch.arange(400) % 100,
        "popularity_weight": popularity_weight,
    }
    expected = all_at_once(queries, items, **options)
    for size in (1, 7, 133, 399, 400):
        assert ground(queries, items.split(size), **options) == expected
    assert whole.shape == parts.shape  # they may differ in their last bits; distances of candidates may not:
    users, rows = torch.arange(32).repeat_interleave(133), torch.arange(133).repeat(32)
    wide = queries.double()
    whole = squared_distances(wide, items.double(), users, rows + 3)
    assert torch.equal(whole, squared_distances(wide, items[3:136].double(), users, rows))
    assert torch.equal(whole[:1], squared_distances(wide[:1], items[3:4].double(), users[:1], rows[:1]))


def test_a_catalogue_of_one_title_is_ranked_by_row() -> None:
    items = torch.ones(3000, 2)
    found = ground(torch.zeros(2, 2), items.split(700), seen=[[], [0, 2]], k=3)
    assert found == [[0, 1, 2], [1, 3, 4]]


def test_distances_are_exact_where_those_of_single_precision_vanish() -> None:
    items = torch.tensor([[1000.25, 0.0], [1000.125, 0.0], [1000.0625, 0.0]])
    assert ground(torch.tensor([[1000.0, 0.0]]), [items], seen=[[]], k=3) == [[2, 1, 0]]


def test_popularity_breaks_near_ties_and_its_weight_decides_how_near() -> None:
    items = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.2, 0.0], [4.0, 0.0]])
    counts, query = torch.tensor([0, 1, 9, 0]), torch.tensor([[0.1, 0.0]])

    def ranked(weight: float) -> list[int]:
        return ground(query, items.split(2), seen=[[]], k=4, counts=counts, popularity_weight=weight)[0]

    assert ranked(0.0) == [0, 1, 2, 3]
    assert ranked(0.1) == [0, 1, 2, 3]
    assert ranked(1.0) == [0, 2, 1, 3]  # the nearest item is at scaled distance 0, whatever its popularity
    distances = (query - items).norm(dim=1)
    by_hand = (scaled(distances) / (1 + counts / 9)).argsort().tolist()
    assert ranked(1.0) == by_hand


def test_an_embedding_with_nan_is_named() -> None:
    items = torch.zeros(5, 2)
    items[3, 1] = torch.nan
    with pytest.raises(NonFinite, match="item 3 "):
        ground(torch.zeros(1, 2), items.split(2), seen=[[]], k=1)
    with pytest.raises(NonFinite, match="written title 0 "):
        ground(torch.full((1, 2), torch.inf), items.split(2), seen=[[]], k=1)


def test_embedding_is_the_last_token_s_state_for_any_batching(llm: tuple[Any, Any]) -> None:
    model, tokenizer = llm
    texts = ["Alien", "", "A much longer title", "B"]
    found = embed(model, tokenizer, texts, batch_tokens=40)
    for text, row in zip(texts, found, strict=True):
        tokens = tokenizer.encode(text) or [tokenizer.eos_token_id]
        states = model(torch.tensor([tokens]), output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(row, states[0, -1].detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(embed(model, tokenizer, texts, batch_tokens=1), found, atol=1e-5, rtol=1e-5)


def test_blocks_on_disk_are_gone_through_again_and_survive_an_interruption(tmp_path: Path) -> None:
    items = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    asked: list[list[int]] = []

    def embedded(rows: list[int]) -> Tensor:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(rows)
        return items[rows]

    with pytest.raises(KeyboardInterrupt):
        write_blocks(tmp_path / "items", embedded, items=10, block=4)
    assert asked == [[0, 1, 2, 3], [4, 5, 6, 7]]
    asked.clear()
    blocks = write_blocks(tmp_path / "items", embedded, items=10, block=4)
    assert asked == [[8, 9]]
    for _ in range(2):
        assert torch.equal(torch.cat(list(blocks)), items)


def test_recommendations_do_not_depend_on_where_the_catalogue_lies(llm: tuple[Any, Any], tmp_path: Path) -> None:
    titles: dict[int | str, str] = {i: f"Film {i % 9}" for i in range(10)}
    prompter = Prompter(llm[1], titles, template="Films: {history}\nNext: ")
    items = list(titles)

    def recommended(**options: Any) -> list[list[int | str]]:
        made = BIGRec(*llm, prompter, items, max_new_tokens=4, **options)
        found = made.recommend([[1, 2], [3]], seen=[[1, 2], [99]], k=4, beams=1, batch_size=2)
        return [one.items for one in found]

    stored = recommended(catalogue=lambda made: write_blocks(tmp_path / "items", made.embed_items, items=10, block=3))
    assert stored == recommended()
    assert not {1, 2} & set(stored[0])
    assert len(stored[0]) == 4


def test_ranks_of_targets_by_hand() -> None:
    """Distances 0, 1, 1, 2 and 3 from the query: ties by row, what is seen makes place, None is behind all."""
    items, query = torch.tensor([[3.0], [1.0], [0.0], [-1.0], [2.0]]), torch.zeros(1, 1)

    def rank(target: int | None, *seen: int, weight: float = 0.0) -> int:
        counts = torch.tensor([9, 0, 0, 9, 0])
        options: dict[str, Any] = {"counts": counts, "popularity_weight": weight, "seen": [list(seen)]}
        return target_ranks(query, items.split(2), targets=[target], **options)[0]

    assert [rank(row) for row in range(5)] == [5, 2, 1, 3, 4]
    assert rank(0, 1, 3, 3) == 5 - 2
    assert rank(None, 1, 3) == rank(3, 1, 3) == 3 + 1
    # scaled distances 1, 1/3, 0, 1/3, 2/3, of which those of rows 0 and 3 are halved
    assert [rank(row, weight=1.0) for row in range(5)] == [4, 3, 1, 2, 5]
    with pytest.raises(ValueError, match="targets"):
        target_ranks(query, [items], targets=[], seen=[[]])


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_ranks_of_targets_are_places_in_the_sorted_catalogue(data: st.DataObject) -> None:
    users, n = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 30))
    number = st.integers(-2, 2).map(float)  # so few values that ties abound, and every sum is exact
    rows = st.lists(number, min_size=3, max_size=3)
    queries = torch.tensor(data.draw(st.lists(rows, min_size=users, max_size=users))).reshape(users, 3)
    items = torch.tensor(data.draw(st.lists(rows, min_size=n, max_size=n)))
    row = st.integers(0, n - 1)
    targets = data.draw(st.lists(st.none() | row, min_size=users, max_size=users))
    options: dict[str, Any] = {
        "seen": data.draw(st.lists(st.lists(row, max_size=n), min_size=users, max_size=users)),
        "counts": torch.tensor(data.draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))),
        "popularity_weight": data.draw(st.sampled_from([0.0, 1.0])),
    }
    lists = all_at_once(queries, items, k=n, **options)
    places = [
        ranked.index(target) + 1 if target in ranked else len(ranked) + 1
        for ranked, target in zip(lists, targets, strict=True)
    ]
    blocks, chunk = items.split(data.draw(st.integers(1, n))), data.draw(st.integers(1, 5))
    assert target_ranks(queries, blocks, targets=targets, **options, chunk=chunk) == places
