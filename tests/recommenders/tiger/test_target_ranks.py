"""The rank of a target by following likely prefixes against scoring every item and sorting."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dealrec.recommenders.tiger import SemanticIds, encode, make_semantic_ids, make_trie, new_model, recommend
from dealrec.recommenders.tiger.semantic_ids import PAD
from dealrec.recommenders.tiger.target_ranks import TIE, _Decoder, target_ranks
from dealrec.sequences import collate
from tests.recommenders.tiger.conftest import SIZES

HISTORIES = [[3], [0, 1, 2, 3, 4, 5], [], [19, 7]]


def inputs(ids: SemanticIds, histories: Sequence[Sequence[int]]) -> dict[str, Any]:
    made = collate([encode(ids, history, 0) for history in histories], pad_id=PAD)
    return {"input_ids": made["input_ids"], "attention_mask": made["attention_mask"]}


@torch.inference_mode()
def scored_one_by_one(
    model: Any, ids: SemanticIds, history: Sequence[int], target: int | None, seen: Sequence[int]
) -> int:
    """The slow twin: each item by teacher forcing, then all sorted; ties by row."""
    made, scores = inputs(ids, [history]), []
    for tokens in ids.tokens:
        start = torch.tensor([[PAD, *tokens[:-1].tolist()]])
        likely = model(**made, decoder_input_ids=start).logits.log_softmax(2)[0]
        scores.append(float(likely[torch.arange(len(tokens)), tokens].sum()))
    rows = [row for row in range(len(ids)) if row not in seen]
    if target is None or target in seen:
        return len(rows) + 1
    own = scores[target]
    keys = {row: (-(own if abs(scores[row] - own) <= TIE else scores[row]), row) for row in rows}
    return sorted(rows, key=keys.__getitem__).index(target) + 1


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_ranks_are_those_of_scoring_every_item(data: st.DataObject) -> None:
    levels, size = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    code = st.lists(st.integers(0, size - 1), min_size=levels, max_size=levels)
    ids = make_semantic_ids(torch.tensor(data.draw(st.lists(code, min_size=1, max_size=12))), codes_per_level=size)
    model = new_model(ids.vocab_size, **SIZES, seed=data.draw(st.integers(0, 3)))
    with torch.no_grad():
        if data.draw(st.booleans(), label="two codes of a level are one and the same"):
            model.shared.weight[2 : 2 + min(2, size)] = model.shared.weight[2].clone()
        model.shared.weight *= data.draw(st.sampled_from([0.5, 3.0]))
    row = st.integers(0, len(ids) - 1)
    users = data.draw(st.integers(1, 3))
    histories = data.draw(st.lists(st.lists(row, max_size=3), min_size=users, max_size=users))
    seen = data.draw(st.lists(st.lists(row, max_size=len(ids)), min_size=users, max_size=users))
    targets = data.draw(st.lists(st.none() | row, min_size=users, max_size=users))
    chunk = data.draw(st.integers(1, 8))
    found = target_ranks(model, make_trie(ids), **inputs(ids, histories), targets=targets, seen=seen, chunk=chunk)
    assert found == [scored_one_by_one(model, ids, *user) for user in zip(histories, targets, seen, strict=True)]


@pytest.mark.slow
def test_a_rank_is_the_place_among_the_recommendations(model: Any, ids: SemanticIds) -> None:
    trie, seen, made = make_trie(ids), [[3], [0, 1, 2], [], [19, 7]], inputs(ids, HISTORIES)
    lists = recommend(model, trie, **made, k=20, beams=20, seen=seen)
    for row in range(20):
        found = target_ranks(model, trie, **made, targets=[row] * 4, seen=seen)
        places = [list_.index(row) + 1 if row in list_ else len(list_) + 1 for list_ in lists]
        assert found == places
    assert target_ranks(model, trie, **made, targets=[4, None, 5, 6], seen=seen)[1] == 18  # 17 are not seen


def test_ties_go_to_the_lower_row(ids: SemanticIds) -> None:
    model = new_model(ids.vocab_size, **SIZES, seed=0)
    with torch.no_grad():
        model.shared.weight.zero_()  # all tokens alike
    for row in (0, 7, 19):
        assert target_ranks(model, make_trie(ids), **inputs(ids, [[1]]), targets=[row], chunk=3) == [row + 1]
    assert target_ranks(model, make_trie(ids), **inputs(ids, [[1]]), targets=[7], seen=[[0, 9]]) == [7]


@pytest.mark.slow
def test_neither_users_beside_nor_the_chunk_matter(model: Any, ids: SemanticIds) -> None:
    trie, made, targets = make_trie(ids), inputs(ids, HISTORIES), [11, 4, 0, 18]
    together = target_ranks(model, trie, **made, targets=targets)
    for chunk in (1, 3, 1000):
        assert target_ranks(model, trie, **made, targets=targets, chunk=chunk) == together
    pairs = zip(HISTORIES, targets, strict=True)
    assert [target_ranks(model, trie, **inputs(ids, [h]), targets=[t])[0] for h, t in pairs] == together


def test_the_decoder_reads_no_more_than_a_chunk_and_no_unlikely_prefix(
    model: Any, ids: SemanticIds, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, trie, widths = inputs(ids, [[3]]), make_trie(ids), []
    step = _Decoder.step

    def counted(decoder: Any, prefixes: Any) -> Any:
        widths.append(len(prefixes.users))
        return step(decoder, prefixes)

    monkeypatch.setattr(_Decoder, "step", counted)
    ((best, *_, worst),) = recommend(model, trie, **made, k=20, beams=20)
    assert target_ranks(model, trie, **made, targets=[best], chunk=2) == [1]
    assert max(widths) <= 2
    of_best = sum(widths)
    widths.clear()
    assert target_ranks(model, trie, **made, targets=[worst], chunk=2) == [20]
    assert max(widths) <= 2
    assert of_best < sum(widths) <= 1 + sum(len(counts) for counts in trie.children[1:])


def test_what_cannot_be_is_refused(model: Any, ids: SemanticIds) -> None:
    trie, made = make_trie(ids), inputs(ids, [[1]])
    with pytest.raises(ValueError, match="1 users but 2 targets"):
        target_ranks(model, trie, **made, targets=[0, 1])
    with pytest.raises(ValueError, match="seen"):
        target_ranks(model, trie, **made, targets=[0], seen=[])
