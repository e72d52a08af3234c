"""Grounding: from written titles to the ids of items, by distance in the LLM's own embedding space.

The catalogue comes in blocks, so that a million items need not be held at once. A matrix product finds the few items
that can be among the nearest; its last bits depend on the shape of the block, so the few are measured again in a way
that does not. What comes out is that of measuring every item so, whatever the blocks.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from dealrec.errors import NonFinite
from dealrec.recommenders.bigrec.least import Least, Pairs, Score, squared_distances
from dealrec.recommenders.bigrec.prompts import closing_length, encode_open
from dealrec.sequences.batches import Encoded, collate, plan_batches

_PRECISION = torch.finfo(torch.float64).eps


@torch.inference_mode()
def embed(model: Any, tokenizer: Any, texts: Sequence[str], *, batch_tokens: int) -> Tensor:
    """The LLM's last hidden state of each text's own last token: [n, D], float32, on the CPU.

    model: the base LLM, without an adapter, so that all arms share one space. The tokens of all texts are held
    at once: a catalogue is given in parts.
    """
    encoded, closing = [], closing_length(tokenizer)
    for text in texts:
        tokens = encode_open(tokenizer, text, closing=closing) or [
            tokenizer.eos_token_id
        ]  # an empty text still has a place
        encoded.append(Encoded(tokens, tokens))
    embeddings: Tensor | None = None
    for batch in plan_batches([len(sample.input_ids) for sample in encoded], batch_tokens=batch_tokens):
        inputs = collate([encoded[i] for i in batch], pad_id=tokenizer.pad_token_id, device=model.device)
        mask = inputs["attention_mask"]
        states = model.base_model(input_ids=inputs["input_ids"], attention_mask=mask, use_cache=False).last_hidden_state
        last = states[torch.arange(len(batch)), mask.sum(1) - 1].float().cpu()
        if embeddings is None:
            embeddings = torch.empty(len(texts), last.shape[1])
        embeddings[batch] = last
    return torch.empty(0, 0) if embeddings is None else embeddings


def ground(
    queries: Tensor,
    items: Iterable[Tensor],
    *,
    seen: Sequence[Sequence[int]],
    k: int,
    counts: Tensor | None = None,
    popularity_weight: float = 0.0,
    chunk: int = 64,
) -> list[list[int]]:
    """Rows of the catalogue nearest to each query [U, D] by L2 distance: at most k each, nearest first.

    items: blocks [b, D] in the order of the catalogue's N rows, gone through once, or twice with a popularity_weight;
    no result depends on their sizes. seen: for each query the rows that are left out. Ties go to the lower row.
    chunk: queries at a time, so that no more than chunk x b distances are held. counts: training interactions of
    each item [N]; with a popularity_weight g distances are scaled to [0, 1] for each query, over the whole catalogue,
    and divided by (1 + p)^g, p the counts scaled to [0, 1], as BIGRec (Bao et al., 2023) brings popularity in.
    Distances are float64. Raises NonFinite for an embedding with NaN.
    """
    if len(queries) != len(seen):
        raise ValueError(f"{len(queries)} queries but {len(seen)} lists of seen items")
    if popularity_weight and counts is None:
        raise ValueError("popularity_weight needs the counts of the items")
    score = score_of(queries, items, counts=counts, popularity_weight=popularity_weight, chunk=chunk)
    if score is None:
        return [[] for _ in seen]
    least = Least(len(queries), k, score, Pairs.of(seen))
    offer_all(queries, items, [least], chunk=chunk)
    return least.rows()


def score_of(
    queries: Tensor, items: Iterable[Tensor], *, counts: Tensor | None, popularity_weight: float, chunk: int
) -> Score | None:
    """What items are ranked by, the least first, as `ground` takes it; None where there is nothing to rank."""
    if not popularity_weight or counts is None:
        return _distance
    nearest, farthest = Least(len(queries), 1, _distance), Least(len(queries), 1, _nearness)
    offer_all(queries, items, [nearest, farthest], chunk=chunk)
    if not len(nearest.score):  # no queries or no items
        return None
    low, high = nearest.score.sqrt(), farthest.score.neg().sqrt()
    return _popularity_adjusted(low, high, (1 + _scaled(counts.double())) ** popularity_weight)


class Ranking(Protocol):
    """What looks at all items as they pass by: rough distances first, then the exact ones of what it asks for."""

    def candidates(self, rough: Tensor, error: Tensor, *, first: int, start: int) -> Pairs:
        """Pairs whose exact distances are wanted, as `Least` has it."""
        ...

    def offer(self, pairs: Pairs, squares: Tensor) -> None:
        """Those, with their squared distances [P]."""
        ...

    def settle(self) -> None:
        """A block has passed."""
        ...


def offer_all(queries: Tensor, items: Iterable[Tensor], rankings: Sequence[Ranking], *, chunk: int) -> None:
    """Offer every item to each of the rankings, block by block."""
    _require_finite(queries, "written title")
    vectors = queries.double()
    lengths = vectors.norm(dim=1)
    start = 0
    for block in items:
        _require_finite(block, "item", start)
        numbers = block.double()
        squares = numbers.square().sum(1)
        longest = squares.max().sqrt() if len(block) else squares.sum()
        for first in range(0, len(queries), chunk):
            part = slice(first, first + chunk)
            rough = squares - 2 * vectors[part] @ numbers.T + lengths[part, None].square()  # [C, b]
            # An inner product of D terms is off by D eps |x| |y| at most, in whatever order they are summed.
            error = 2 * (queries.shape[1] + 8) * _PRECISION * (lengths[part, None] + longest).square()
            for ranking in rankings:
                near = ranking.candidates(rough, error, first=first, start=start)
                ranking.offer(near, squared_distances(vectors, numbers, near.users, near.rows - start))
        start += len(block)
        for ranking in rankings:
            ranking.settle()


def _distance(squares: Tensor, _users: Tensor, _rows: Tensor) -> Tensor:
    return squares


def _nearness(squares: Tensor, _users: Tensor, _rows: Tensor) -> Tensor:
    return -squares


def _popularity_adjusted(low: Tensor, high: Tensor, popularity: Tensor) -> Score:
    """low, high: of each query's distances [U]. popularity: what distances are divided by [N]."""
    span = torch.where(high > low, high - low, torch.inf)  # where all are equally far, all are at 0

    def score(squares: Tensor, users: Tensor, rows: Tensor) -> Tensor:
        return (squares.clamp_min(0).sqrt() - low[users]) / span[users] / popularity[rows]

    return score


def _scaled(values: Tensor) -> Tensor:
    """[N] scaled to [0, 1]; zeros where all are equal."""
    low, high = values.aminmax()
    return torch.where(high > low, (values - low) / (high - low), 0.0)


def _require_finite(embeddings: Tensor, name: str, start: int = 0) -> None:
    rows = (~torch.isfinite(embeddings)).any(1).nonzero().flatten()
    if len(rows):
        raise NonFinite(
            f"evaluate: the embedding of {name} {start + int(rows[0])} is NaN or infinite", "Check the LLM's weights."
        )
