"""Beam search over the semantic ids that exist.

All ids have one length, so the search takes a step a level: score the children of every beam, keep the best.
The trie is pruned for each user by what they have seen, which gives exactly the ranking over the other items.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

from dealrec.sequences import cache_keyword


@dataclass(frozen=True)
class Trie:
    """The prefixes of all ids, depth by depth: depth 0 is the root, depth L has a node an item.

    Nodes are numbered in lexicographic order, so that a node's children follow one another. first_child and
    children are lists over depths 0 to L - 1, tokens (that lead to a node) and path (the node above each row of the
    catalogue, [n]) over depths 0 to L; rows: the item of each node at depth L.
    """

    first_child: list[Tensor]
    children: list[Tensor]
    tokens: list[Tensor]
    path: list[Tensor]
    rows: Tensor

    def below(self, depth: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The children of nodes [...], and which of them are real: each [..., C], C the most that a node has."""
        column = torch.arange(int(self.children[depth].max()), device=nodes.device)
        real = column < self.children[depth][nodes].unsqueeze(-1)
        return torch.where(real, self.first_child[depth][nodes].unsqueeze(-1) + column, 0), real

    def unseen(self, seen: Sequence[Sequence[int]]) -> list[Tensor]:
        """For each depth which nodes still lead to an item that a user has not seen: [B, nodes], bool."""
        users = torch.tensor([user for user, rows in enumerate(seen) for _ in set(rows)], dtype=torch.int64)
        rows = torch.tensor([row for rows in seen for row in sorted(set(rows))], dtype=torch.int64)
        users, rows = users.to(self.rows.device), rows.to(self.rows.device)
        masks = []
        for path in self.path:
            counts = path.bincount().repeat(len(seen), 1)
            counts.index_put_((users, path[rows]), counts.new_tensor(-1), accumulate=True)
            masks.append(counts > 0)
        return masks


class Spelled(Protocol):
    """Items as tuples of tokens."""

    @property
    def tokens(self) -> Tensor:
        """The tokens that spell each item, no two items alike: [n, L], int64."""
        ...


def make_trie(ids: Spelled, *, device: torch.device | None = None) -> Trie:
    """The trie of the ids' tokens."""
    if not len(ids.tokens):
        raise ValueError("there is no item to recommend")
    n, levels = ids.tokens.shape
    order = torch.arange(n)
    for level in reversed(range(levels)):
        order = order[ids.tokens[order, level].argsort(stable=True)]
    sorted_tokens = ids.tokens[order]
    parents, tokens, path = torch.zeros(n, dtype=torch.int64), [torch.zeros(1, dtype=torch.int64)], []
    path.append(parents.clone())
    first_child, children = [], []
    starts = torch.zeros(n, dtype=torch.bool)  # whether a row of the sorted ids begins another prefix
    starts[0] = True
    for level in range(levels):
        starts[1:] |= sorted_tokens[1:, level] != sorted_tokens[:-1, level]
        node = starts.cumsum(0) - 1
        counts = parents[starts].bincount()
        children.append(counts)
        first_child.append(counts.cumsum(0) - counts)
        tokens.append(sorted_tokens[starts, level])
        path.append(torch.empty_like(node).index_copy_(0, order, node))
        parents = node

    def on_device(parts: list[Tensor]) -> list[Tensor]:
        return [part.to(device) for part in parts]

    return Trie(on_device(first_child), on_device(children), on_device(tokens), on_device(path), order.to(device))


class Decoder(Protocol):
    """What has read the prompts of B users and writes for W beams of each."""

    def step(self, tokens: Tensor) -> Tensor:
        """Log-probabilities of the token after `tokens` [B, W]: [B, W, V]."""
        ...

    def follow(self, beams: Tensor) -> None:
        """Go on with the beams [B, W] of the last step."""
        ...


class _Decoder:
    """The decoder's state for B users: what they have read is encoded once, keys and values are kept."""

    def __init__(self, model: Any, input_ids: Tensor, attention_mask: Tensor) -> None:
        self.model, self.mask = model, attention_mask
        self.states = model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        self.cache, self.cache_keyword = EncoderDecoderCache(DynamicCache(), DynamicCache()), cache_keyword(model)

    def step(self, tokens: Tensor) -> Tensor:
        """Log-probabilities of the token after `tokens` [B, W]: [B, W, V]."""
        users, width = tokens.shape
        logits: Tensor = self.model(
            encoder_outputs=(self.states,),
            attention_mask=self.mask,
            decoder_input_ids=tokens.reshape(-1, 1),
            use_cache=True,
            **{self.cache_keyword: self.cache},
        ).logits
        return logits[:, -1].float().log_softmax(1).view(users, width, -1)

    def follow(self, beams: Tensor) -> None:
        """Go on with the beams [B, W] of the last step."""
        users = len(beams)
        width = len(self.mask) // users
        rows = (torch.arange(users, device=beams.device).unsqueeze(1) * width + beams).flatten()
        self.cache.batch_select_indices(rows)
        self.mask, self.states = self.mask[rows], self.states[rows]


@torch.inference_mode()
def recommend(
    model: Any,
    trie: Trie,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    k: int,
    beams: int,
    seen: Sequence[Sequence[int]] | None = None,
) -> list[list[int]]:
    """Rows of the catalogue for each user, likeliest first, at most k each; ties go to the lower row.

    model: an encoder-decoder in eval mode. input_ids, attention_mask: [B, S]. beams: kept at each level, at
    least k; with as many as items the ranking is that of all items' likelihoods. seen: for each user the rows
    that are left out. An item's score is the sum of its tokens' log-probabilities over the whole vocabulary.
    """
    start = torch.full_like(input_ids[:, :1], model.config.decoder_start_token_id)
    return search(_Decoder(model, input_ids, attention_mask), trie, start, k=k, beams=beams, seen=seen)


@torch.inference_mode()
def search(
    decoder: Decoder, trie: Trie, start: Tensor, *, k: int, beams: int, seen: Sequence[Sequence[int]] | None = None
) -> list[list[int]]:
    """`recommend` with any decoder. start: the token of each user that the first code comes after, [B, 1]."""
    if beams < k:
        raise ValueError(f"{beams} beams cannot find {k} items")
    if seen is not None and len(seen) != len(start):
        raise ValueError(f"{len(start)} users but {len(seen)} lists of seen items")
    open_nodes = None if seen is None else trie.unseen(seen)
    nodes = torch.zeros_like(start)
    scores = torch.zeros(len(start), 1, device=start.device)
    tokens = start
    for depth in range(len(trie.children)):
        log_probabilities = decoder.step(tokens)  # [B, W, V]
        children, real = trie.below(depth, nodes)  # [B, W, C]
        if open_nodes is not None:
            real &= open_nodes[depth + 1].gather(1, children.flatten(1)).view_as(real)
        child_tokens = trie.tokens[depth + 1][children]
        totals = (scores.unsqueeze(2) + log_probabilities.gather(2, child_tokens)).masked_fill(~real, float("-inf"))
        scores, place = (part[:, :beams] for part in totals.flatten(1).sort(descending=True, stable=True))
        nodes, tokens = (part.flatten(1).gather(1, place) for part in (children, child_tokens))
        if depth + 1 < len(trie.children):
            decoder.follow(place // children.shape[2])
    return _ranked(trie.rows[nodes], scores, k)


def _ranked(rows: Tensor, scores: Tensor, k: int) -> list[list[int]]:
    """Rows [B, W] by score, ties by row; those that no user may get have minus infinity."""
    by_row = rows.argsort(1)
    rows, scores = rows.gather(1, by_row), scores.gather(1, by_row)
    scores, order = scores.sort(descending=True, stable=True)
    lengths = torch.isfinite(scores).sum(1).clamp_max(k).tolist()
    return [ranking[:count] for ranking, count in zip(rows.gather(1, order).tolist(), lengths, strict=True)]
