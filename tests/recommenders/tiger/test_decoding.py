"""Beam search over the trie against scoring every item of the catalogue on its own."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dealrec.recommenders.tiger import SemanticIds, encode, make_semantic_ids, make_trie, new_model, recommend
from dealrec.recommenders.tiger.semantic_ids import PAD
from dealrec.sequences import Encoded, collate, sequence_losses
from tests.recommenders.tiger.conftest import SIZES

HISTORIES = [[3], [0, 1, 2, 3, 4, 5], [], [19, 7]]


def batch_of(ids: SemanticIds, histories: Sequence[Sequence[int]]) -> dict[str, Any]:
    made = collate([encode(ids, history, 0) for history in histories], pad_id=PAD)
    return {"input_ids": made["input_ids"], "attention_mask": made["attention_mask"]}


@torch.inference_mode()
def exhaustive(model: Any, ids: SemanticIds, history: Sequence[int], left_out: Sequence[int] = ()) -> list[int]:
    """All items by log-likelihood, each scored by the loss that training takes; ties by row."""
    samples = [encode(ids, history, row) for row in range(len(ids))]
    losses = sequence_losses(model, collate(samples, pad_id=PAD))
    order = sorted(range(len(ids)), key=lambda row: (round(float(losses[row]), 5), row))
    return [row for row in order if row not in left_out]


def test_with_as_many_beams_as_items_the_ranking_is_that_of_all_likelihoods(model: Any, ids: SemanticIds) -> None:
    trie = make_trie(ids)
    found = recommend(model, trie, **batch_of(ids, HISTORIES), k=20, beams=20)
    assert found == [exhaustive(model, ids, history) for history in HISTORIES]


def test_what_was_seen_is_left_out_and_nothing_else_moves(model: Any, ids: SemanticIds) -> None:
    trie, seen = make_trie(ids), [[3, 3], [0, 1, 2, 3, 4, 5], [], list(range(19))]
    found = recommend(model, trie, **batch_of(ids, HISTORIES), k=20, beams=20, seen=seen)
    assert found == [exhaustive(model, ids, *pair) for pair in zip(HISTORIES, seen, strict=True)]
    assert found[3] == [19]


def test_few_beams_still_find_k_unseen_items(model: Any, ids: SemanticIds) -> None:
    trie = make_trie(ids)
    best = exhaustive(model, ids, HISTORIES[1])
    # without the pruned trie these beams would end in what was seen
    seen = [best[:10]]
    (found,) = recommend(model, trie, **batch_of(ids, HISTORIES[1:2]), k=3, beams=3, seen=seen)
    assert len(set(found)) == 3
    assert not set(found) & set(best[:10])


def test_everything_seen_leaves_nothing(model: Any, ids: SemanticIds) -> None:
    trie = make_trie(ids)
    found = recommend(model, trie, **batch_of(ids, [[1], [2]]), k=2, beams=4, seen=[list(range(20)), []])
    assert found[0] == []
    assert len(found[1]) == 2


def slow_beam_search(model: Any, ids: SemanticIds, history: Sequence[int], k: int, beams: int) -> list[int]:
    """Prefixes as tuples, the whole decoder anew for each."""
    kept: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    spelt = [tuple(tokens) for tokens in ids.tokens.tolist()]
    made = batch_of(ids, [history])
    for depth in range(ids.tokens.shape[1]):
        grown = []
        for score, prefix in kept:
            with torch.inference_mode():
                logits = model(**made, decoder_input_ids=torch.tensor([[PAD, *prefix]])).logits
            likely = logits[0, -1].log_softmax(0)
            for token in sorted({item[depth] for item in spelt if item[:depth] == prefix}):
                grown.append((score + float(likely[token]), (*prefix, token)))
        kept = sorted(grown, key=lambda pair: -pair[0])[:beams]
    return [spelt.index(prefix) for _, prefix in kept][:k]


@settings(deadline=None, max_examples=25)
@given(data=st.data())
@pytest.mark.slow
def test_any_width_equals_a_plain_beam_search(data: st.DataObject) -> None:
    levels, size = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    code = st.lists(st.integers(0, size - 1), min_size=levels, max_size=levels)
    codes = data.draw(st.lists(code, min_size=1, max_size=12))
    ids = make_semantic_ids(torch.tensor(codes), codes_per_level=size)
    model = new_model(ids.vocab_size, **SIZES, seed=data.draw(st.integers(0, 3)))
    beams = data.draw(st.integers(1, 12))
    k = data.draw(st.integers(1, beams))
    history = st.lists(st.integers(0, len(ids) - 1), max_size=3)
    histories = data.draw(st.lists(history, min_size=1, max_size=3))
    found = recommend(model, make_trie(ids), **batch_of(ids, histories), k=k, beams=beams)
    assert found == [slow_beam_search(model, ids, history, k, beams) for history in histories]


def test_neither_the_batch_nor_its_order_matters(model: Any, ids: SemanticIds) -> None:
    trie = make_trie(ids)
    together = recommend(model, trie, **batch_of(ids, HISTORIES), k=5, beams=6)
    assert recommend(model, trie, **batch_of(ids, HISTORIES[::-1]), k=5, beams=6) == together[::-1]
    alone = [recommend(model, trie, **batch_of(ids, [history]), k=5, beams=6)[0] for history in HISTORIES]
    assert alone == together


def test_ties_go_to_the_lower_row(ids: SemanticIds) -> None:
    model = new_model(ids.vocab_size, **SIZES, seed=0)
    with torch.no_grad():
        model.shared.weight.zero_()  # all tokens alike
    assert recommend(model, make_trie(ids), **batch_of(ids, [[1]]), k=20, beams=20) == [list(range(20))]


def test_the_order_is_that_of_transformers_own_constrained_search(model: Any, ids: SemanticIds) -> None:
    made, levels, k = batch_of(ids, HISTORIES), ids.tokens.shape[1], 6
    after: dict[tuple[int, ...], set[int]] = {}
    for tokens in ids.tokens.tolist():
        for depth in range(levels):
            after.setdefault(tuple(tokens[:depth]), set()).add(tokens[depth])

    def allowed(_batch: int, written: torch.Tensor) -> list[int]:
        return sorted(after[tuple(written[1:].tolist())])

    written = model.generate(
        **made,
        num_beams=k,
        num_return_sequences=k,
        do_sample=False,
        max_new_tokens=levels,
        min_new_tokens=levels,
        length_penalty=0.0,
        eos_token_id=None,
        prefix_allowed_tokens_fn=allowed,
    )
    theirs = ids.rows(written[:, 1 : levels + 1].tolist())
    ours = recommend(model, make_trie(ids), **made, k=k, beams=k)
    assert ours == [theirs[start : start + k] for start in range(0, len(theirs), k)]


def test_what_cannot_be_is_refused(model: Any, ids: SemanticIds) -> None:
    trie, made = make_trie(ids), batch_of(ids, [[1]])
    with pytest.raises(ValueError, match="beams"):
        recommend(model, trie, **made, k=5, beams=4)
    with pytest.raises(ValueError, match="seen"):
        recommend(model, trie, **made, k=1, beams=4, seen=[])
    with pytest.raises(ValueError, match="no item"):
        make_trie(make_semantic_ids(torch.empty(0, 1, dtype=torch.int64), codes_per_level=2))


def test_a_sample_is_its_recent_history_and_the_end(ids: SemanticIds) -> None:
    found = encode(ids, [4, 5, 6], 7, max_items=2)
    assert found == Encoded([*ids.tokens[5].tolist(), *ids.tokens[6].tolist(), 1], ids.tokens[7].tolist())
