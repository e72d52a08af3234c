"""Semantic ids: unique, stable for known items, and back again."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dealrec.recommenders.tiger import SemanticIds, make_semantic_ids

CODES = torch.tensor([[0, 1], [2, 2], [0, 1], [0, 1], [2, 0]])


def test_one_more_code_tells_apart_the_items_that_share_theirs() -> None:
    ids = make_semantic_ids(CODES, codes_per_level=3)
    assert ids.codes.tolist() == [[0, 1, 0], [2, 2, 0], [0, 1, 1], [0, 1, 2], [2, 0, 0]]
    assert ids.sizes == (3, 3, 3)
    assert ids.vocab_size == 2 + 3 + 3 + 3
    assert ids.tokens.tolist()[2] == [2 + 0, 2 + 3 + 1, 2 + 6 + 1]


def test_cold_items_come_after_known_ones() -> None:
    known = torch.tensor([False, True, True, True, True])
    ids = make_semantic_ids(CODES, codes_per_level=3, known=known)
    assert ids.codes[:, 2].tolist() == [2, 0, 0, 1, 0]


@pytest.mark.slow
@settings(deadline=None)
@given(data=st.data(), levels=st.integers(1, 3), size=st.integers(1, 4))
def test_every_item_has_an_id_of_its_own_and_comes_back(data: st.DataObject, levels: int, size: int) -> None:
    code = st.lists(st.integers(0, size - 1), min_size=levels, max_size=levels)
    rows = data.draw(st.lists(st.tuples(code, st.booleans()), min_size=1, max_size=30))
    codes, known = torch.tensor([row for row, _ in rows]), torch.tensor([flag for _, flag in rows])
    ids = make_semantic_ids(codes, codes_per_level=size, known=known)
    assert len(set(map(tuple, ids.codes.tolist()))) == len(rows)
    assert torch.equal(ids.codes[:, :-1], codes)
    assert ids.rows(ids.tokens.tolist()) == list(range(len(rows)))
    # the tokens of a level are its own
    per_level = [set(column) for column in ids.tokens.T.tolist()]
    assert all(not a & b for i, a in enumerate(per_level) for b in per_level[:i])
    assert int(ids.tokens.min()) >= 2
    assert int(ids.tokens.max()) < ids.vocab_size
    # what known items are called does not depend on the cold ones
    alone = make_semantic_ids(codes[known], codes_per_level=size)
    assert torch.equal(ids.codes[known], alone.codes)


def test_tokens_that_spell_no_item_give_none() -> None:
    ids = make_semantic_ids(CODES, codes_per_level=3)
    assert ids.rows([[0, 1, 2], [2, 2 + 3 + 1, 2 + 6 + 0]]) == [-1, 0]


def test_an_empty_catalogue_has_no_ids() -> None:
    assert len(make_semantic_ids(torch.empty(0, 2, dtype=torch.int64), codes_per_level=3)) == 0


@pytest.mark.parametrize(
    ("codes", "sizes", "message"),
    [
        ([[0, 0], [0, 0]], (2, 2), "share"),
        ([[0, 2]], (2, 2), "outside"),
        ([[0, -1]], (2, 2), "outside"),
        ([[0, 1]], (2,), "levels"),
    ],
)
def test_ids_that_cannot_be_are_refused(codes: list[list[int]], sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SemanticIds(torch.tensor(codes), sizes)
