"""An LLM over semantic ids as the stages use it."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from dealrec.columns import Id
from dealrec.recommenders.bigrec.prompts import PLACEHOLDER, closing_length, encode_open
from dealrec.recommenders.protocol import Recommended, Watch
from dealrec.recommenders.sid.decoding import CausalDecoder
from dealrec.recommenders.sid.tokens import ItemTokens
from dealrec.recommenders.tiger.decoding import Trie, make_trie, search
from dealrec.sequences.batches import Encoded, plan_batches
from dealrec.sequences.losses import IGNORED


class SID:
    """A causal LM that reads the tokens of a history in a prompt, and writes those of the next item.

    items: ids of the catalogue, a row of `ids` each. template: the prompt, with {history} once. max_items: of a history
    at most.
    """

    def __init__(
        self, model: Any, tokenizer: Any, ids: ItemTokens, items: Sequence[Id], *, template: str, max_items: int
    ) -> None:
        self.model, self.tokenizer, self.ids, self.items, self.max_items = model, tokenizer, ids, items, max_items
        self.row = {item: row for row, item in enumerate(items)}
        self.pad_id: int = tokenizer.pad_token_id
        self._opening, self._ending = frame(tokenizer, template)

    def encode(self, history: Sequence[Id], target: Id) -> Encoded:
        """The prompt and the target's tokens; labels on these alone."""
        prompt, learnt = self._prompt(history), self.ids.tokens[self.row[target]].tolist()
        return Encoded([*prompt, *learnt], [IGNORED] * len(prompt) + learnt)

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
        """The likeliest ids that exist, by beam search; at least k beams are kept. Targets' ranks are not taken."""
        if targets is not None:
            raise ValueError("exact ranks of targets are not taken of this recommender")
        prompts = [self._prompt(history) for history in histories]
        recommended = [Recommended([], "") for _ in prompts]
        for batch in watch(plan_batches([len(prompt) for prompt in prompts], batch_size=batch_size)):
            decoder = CausalDecoder(self.model, [prompts[i] for i in batch], pad_id=self.pad_id)
            excluded = [[self.row[item] for item in seen[i] if item in self.row] for i in batch]
            ranked = search(decoder, self._trie, decoder.start, k=k, beams=max(beams, k), seen=excluded)
            for i, rows in zip(batch, ranked, strict=True):
                written = "".join(self.ids.texts[rows[0]]) if rows else ""
                recommended[i] = Recommended([self.items[row] for row in rows], written)
        return recommended

    def _prompt(self, history: Sequence[Id]) -> list[int]:
        read = [token for item in history[-self.max_items :] for token in self.ids.tokens[self.row[item]].tolist()]
        return [*self._opening, *read, *self._ending]

    @cached_property
    def _trie(self) -> Trie:
        return make_trie(self.ids, device=self.model.device)


def frame(tokenizer: Any, template: str) -> tuple[list[int], list[int]]:
    """The tokens of a prompt before those of the items and after them."""
    opening, _, ending = template.partition(PLACEHOLDER)
    after = tokenizer.encode(ending, add_special_tokens=False) if ending else []
    return encode_open(tokenizer, opening, closing=closing_length(tokenizer)), after
