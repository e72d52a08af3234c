"""BIGRec as the stages use it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from peft import PeftModel
from torch import Tensor

from dealrec.columns import Id
from dealrec.recommenders.bigrec.generation import generate
from dealrec.recommenders.bigrec.grounding import embed, ground
from dealrec.recommenders.bigrec.prefix import read_prefix
from dealrec.recommenders.bigrec.prompts import Prompter
from dealrec.recommenders.bigrec.rows import Longer, encode_row, positions
from dealrec.recommenders.bigrec.target_ranks import target_ranks
from dealrec.recommenders.protocol import EncodedRow, Recommended, Watch
from dealrec.sequences.batches import Encoded, plan_batches


class BIGRec:
    """An LLM that writes a title, and the catalogue in which the title is looked up.

    model: with or without an adapter. base: the LLM in whose space titles are compared, the same for all arms; an
    adapter on it is switched off for that. items: ids of the catalogue. catalogue: gives the embeddings of all items in
    blocks, from `embed_items`; they are computed once for all arms. counts, popularity_weight: as `ground` takes them.
    batch_tokens: tokens per batch of embedding. max_row_tokens: of a training row of the user's own; None: the LLM's
    positions. longer_rows: as `encode_row` takes it.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        prompter: Prompter,
        items: Sequence[Id],
        *,
        base: Any = None,
        catalogue: Callable[["BIGRec"], Iterable[Tensor]] | None = None,
        counts: Tensor | None = None,
        popularity_weight: float = 0.0,
        max_new_tokens: int = 32,
        batch_tokens: int = 2048,
        max_row_tokens: int | None = None,
        longer_rows: Longer = "cut",
    ) -> None:
        self.model, self.tokenizer, self.prompter = model, tokenizer, prompter
        self.items, self.base = items, model if base is None else base
        self.catalogue = catalogue or (lambda recommender: [recommender.embed_items(range(len(items)))])
        self.grounding: dict[str, Any] = {"counts": counts, "popularity_weight": popularity_weight}
        self.max_new_tokens, self.batch_tokens = max_new_tokens, batch_tokens
        self.pad_id: int = tokenizer.pad_token_id
        self.row_limit, self.longer_rows = max_row_tokens or positions(model), longer_rows

    def encode(self, history: Sequence[Id], target: Id) -> Encoded:
        """Prompt, title and end; labels on the title and the end alone."""
        return self.prompter.encode(history, target)

    def encode_row(self, row: Mapping[str, Any]) -> EncodedRow:
        """As `rows.encode_row` has it, within the LLM's positions."""
        return encode_row(self.tokenizer, row, limit=self.row_limit, longer=self.longer_rows)

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
        """Write a title for each history; the items whose titles are nearest to it, of those not seen."""
        prompts = [self.prompter.encode_prompt(history) for history in histories]
        titles = [""] * len(prompts)
        prefix = read_prefix(self.model, prompts)
        for batch in watch(plan_batches([len(prompt) for prompt in prompts], batch_size=batch_size)):
            rows = [prompts[i] for i in batch]
            options: dict[str, Any] = {"beams": beams, "max_new_tokens": self.max_new_tokens, "prefix": prefix}
            batch_titles = generate(self.model, self.tokenizer, rows, **options)
            for i, title in zip(batch, batch_titles, strict=True):
                titles[i] = title
        wanted = {item for items in (*seen, targets or ()) for item in items}
        row_of = {item: number for number, item in enumerate(self.items) if item in wanted}
        excluded = [[row_of[item] for item in items if item in row_of] for items in seen]
        queries, catalogue = self._embed(titles), self.catalogue(self)
        ranked = ground(queries, catalogue, seen=excluded, k=k, **self.grounding)
        ranks: Sequence[int | None] = [None] * len(titles)
        if targets is not None:
            rows_of_targets = [None if item is None else row_of.get(item) for item in targets]
            ranks = target_ranks(queries, catalogue, targets=rows_of_targets, seen=excluded, **self.grounding)
        return [
            Recommended([self.items[place] for place in rows], title, target_rank)
            for rows, title, target_rank in zip(ranked, titles, ranks, strict=True)
        ]

    def embed_items(self, rows: Sequence[int]) -> Tensor:
        """The embedding of the title of each of some rows of the catalogue by the base LLM: [n, D]."""
        return self._embed([self.prompter.bare_title(self.items[row]) for row in rows])

    def _embed(self, texts: Sequence[str]) -> Tensor:
        with _without_adapter(self.base) as base:
            return embed(base, self.tokenizer, texts, batch_tokens=self.batch_tokens)


@contextmanager
def _without_adapter(model: Any) -> Iterator[Any]:
    if isinstance(model, PeftModel):
        with model.disable_adapter():
            yield model.get_base_model()
    else:
        yield model
