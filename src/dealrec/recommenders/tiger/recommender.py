"""TIGER as the stages use it."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from dealrec.columns import Id
from dealrec.recommenders.protocol import Recommended, Watch
from dealrec.recommenders.tiger.decoding import Trie, make_trie, recommend
from dealrec.recommenders.tiger.model import encode
from dealrec.recommenders.tiger.semantic_ids import PAD, SemanticIds
from dealrec.recommenders.tiger.target_ranks import target_ranks
from dealrec.sequences.batches import Encoded, collate, plan_batches


class TIGER:
    """An encoder-decoder over semantic ids.

    items: ids of the catalogue, a row of `ids` each. max_items: of a history, that the model reads.
    """

    pad_id = PAD

    def __init__(self, model: Any, ids: SemanticIds, items: Sequence[Id], *, max_items: int) -> None:
        self.model, self.ids, self.items, self.max_items = model, ids, items, max_items
        self.row = {item: row for row, item in enumerate(items)}

    def encode(self, history: Sequence[Id], target: Id) -> Encoded:
        """The ids of the history and the end; labels spell the target's id."""
        return encode(self.ids, [self.row[item] for item in history], self.row[target], max_items=self.max_items)

    def recommend(
        self,
        histories: Sequence[Sequence[Id]],
        *,
        seen: Sequence[Sequence[Id]],
        k: int,
        beams: int,
        batch_size: int,
        targets: Sequence[Id | None] | None = None,
        watch: Watch = iter,
    ) -> list[Recommended]:
        """The likeliest ids that exist, by beam search; at least k beams are kept, however few are asked for."""
        encoded = [self.encode(history, self.items[0]) for history in histories]  # the target is not read
        recommended = [Recommended([], "") for _ in encoded]
        for batch in watch(plan_batches([len(sample.input_ids) for sample in encoded], batch_size=batch_size)):
            inputs = collate([encoded[i] for i in batch], pad_id=PAD, device=self.model.device)
            excluded = [[self.row[item] for item in seen[i] if item in self.row] for i in batch]
            input_ids, mask = inputs["input_ids"], inputs["attention_mask"]
            ranked = recommend(self.model, self._trie, input_ids, mask, k=k, beams=max(beams, k), seen=excluded)
            ranks: Sequence[int | None] = [None] * len(batch)
            if targets is not None:
                wanted = [None if (item := targets[i]) is None else self.row.get(item) for i in batch]
                ranks = target_ranks(self.model, self._trie, input_ids, mask, targets=wanted, seen=excluded)
            for i, rows, target_rank in zip(batch, ranked, ranks, strict=True):
                written = " ".join(map(str, self.ids.codes[rows[0]].tolist())) if rows else ""
                recommended[i] = Recommended([self.items[row] for row in rows], written, target_rank)
        return recommended

    @cached_property
    def _trie(self) -> Trie:
        return make_trie(self.ids, device=self.model.device)
