"""The rank of one item among all, exactly: how many semantic ids are at least as likely as the target's.

A prefix is never less likely than the ids that it begins, so that only the prefixes that are as likely as the target
need be followed. The frontier is followed depth first in chunks: what is held does not grow with the catalogue.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

from dealrec.recommenders.tiger.decoding import Trie
from dealrec.sequences import cache_keyword

TIE = 1e-5  # nats; the log-likelihoods of equally likely ids differ by what single precision rounds


@dataclass(frozen=True)
class _Prefixes:
    """P prefixes of one depth: of which user each is, its node, last token and log-probability, [P] each.

    cache: keys and values of the prefixes that these go on from, each from one of `rows`, [P].
    """

    depth: int
    users: Tensor
    nodes: Tensor
    tokens: Tensor
    scores: Tensor
    cache: DynamicCache
    rows: Tensor

    def of(self, part: Tensor) -> "_Prefixes":
        """Some of them."""
        names = ("users", "nodes", "tokens", "scores", "rows")
        return _Prefixes(self.depth, cache=self.cache, **{name: getattr(self, name)[part] for name in names})

    def split(self, size: int) -> "list[_Prefixes]":
        """In chunks, none of them empty."""
        places = torch.arange(len(self.users), device=self.users.device)
        return [self.of(part) for part in places.split(size) if len(part)]


@torch.inference_mode()
def target_ranks(
    model: Any,
    trie: Trie,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    targets: Sequence[int | None],
    seen: Sequence[Sequence[int]] | None = None,
    chunk: int = 256,
) -> list[int]:
    """The rank, from 1, of each user's target among the rows of the catalogue that are not `seen`.

    model, input_ids, attention_mask, seen and an item's score: as `recommend` has them, and the rank is the target's
    place in what `recommend` finds with as many beams as items: of items whose log-likelihoods differ by less than
    `TIE` the lower row comes first. targets: rows; one that is None or seen is behind all others. chunk: prefixes,
    of all users together, that the decoder reads at a time; memory is bounded by chunk x depths.
    """
    if len(targets) != len(input_ids) or (seen is not None and len(seen) != len(input_ids)):
        raise ValueError(f"{len(input_ids)} users but {len(targets)} targets, or another number of lists of seen items")
    device = input_ids.device
    open_nodes = trie.unseen([[] for _ in targets] if seen is None else seen)
    target = torch.tensor([0 if row is None else row for row in targets], device=device)
    leaf = trie.path[-1][target]
    ranked = open_nodes[-1].gather(1, leaf.unsqueeze(1)).squeeze(1)
    ranked &= torch.tensor([row is not None for row in targets], device=device)
    states = model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    decoder = _Decoder(model, states, attention_mask)
    bounds = decoder.likelihoods(torch.stack([part[path[target]] for part, path in _tokens(trie)], 1))
    ahead = torch.zeros(len(targets), dtype=torch.int64, device=device)
    waiting = decoder.roots(ranked.nonzero().squeeze(1)).split(chunk)
    while waiting:
        prefixes = waiting.pop()
        likelihoods, cache = decoder.step(prefixes)  # [P, V]
        below = prefixes.depth + 1
        children, real = trie.below(prefixes.depth, prefixes.nodes)  # [P, C]
        real &= open_nodes[below][prefixes.users.unsqueeze(1), children]
        tokens = trie.tokens[below][children]
        scores = prefixes.scores.unsqueeze(1) + likelihoods.gather(1, tokens)
        rows, place = (real & (scores >= bounds[prefixes.users].unsqueeze(1) - TIE)).nonzero(as_tuple=True)
        users, nodes, scores = prefixes.users[rows], children[rows, place], scores[rows, place]
        if below < len(trie.children):
            waiting += _Prefixes(below, users, nodes, tokens[rows, place], scores, cache, rows).split(chunk)
        else:
            items = trie.rows[nodes]
            before = (items < target[users]) | (scores > bounds[users] + TIE)
            ahead.index_add_(0, users, (before & (items != target[users])).long())
    return torch.where(ranked, ahead, open_nodes[-1].sum(1)).add(1).tolist()


def _tokens(trie: Trie) -> list[tuple[Tensor, Tensor]]:
    return list(zip(trie.tokens[1:], trie.path[1:], strict=True))


class _Decoder:
    """The decoder for users whose histories are encoded: what attends to these is computed once a user."""

    def __init__(self, model: Any, states: Tensor, mask: Tensor) -> None:
        self.model, self.states, self.mask = model, states, mask
        self.cross, self.cache_keyword = DynamicCache(), cache_keyword(model)

    def likelihoods(self, tokens: Tensor) -> Tensor:
        """Log-likelihoods of ids [B, L], one a user: [B]."""
        start = torch.full_like(tokens[:, :1], self.model.config.decoder_start_token_id)
        cache = EncoderDecoderCache(DynamicCache(), self.cross)
        logits = self._read(torch.cat([start, tokens[:, :-1]], 1), self.states, self.mask, cache)
        return logits.float().log_softmax(2).gather(2, tokens.unsqueeze(2)).squeeze(2).sum(1)

    def roots(self, users: Tensor) -> _Prefixes:
        """The empty prefix of each of some users."""
        tokens = torch.full_like(users, self.model.config.decoder_start_token_id)
        nodes = torch.zeros_like(users)
        return _Prefixes(0, users, nodes, tokens, torch.zeros(len(users), device=users.device), DynamicCache(), nodes)

    def step(self, prefixes: _Prefixes) -> tuple[Tensor, DynamicCache]:
        """Log-probabilities of the next token, [P, V], and the keys and values to go on from."""
        users, own = prefixes.users, _selected(prefixes.cache, prefixes.rows)
        cache = EncoderDecoderCache(own, _selected(self.cross, users))
        logits = self._read(prefixes.tokens.unsqueeze(1), self.states[users], self.mask[users], cache)
        return logits[:, -1].float().log_softmax(1), own

    def _read(self, tokens: Tensor, states: Tensor, mask: Tensor, cache: EncoderDecoderCache) -> Tensor:
        logits: Tensor = self.model(
            encoder_outputs=(states,),
            attention_mask=mask,
            decoder_input_ids=tokens,
            use_cache=True,
            **{self.cache_keyword: cache},
        ).logits
        return logits


def _selected(cache: DynamicCache, rows: Tensor) -> DynamicCache:
    """A copy of some rows, which the model may go on from."""
    selected = copy.copy(cache)
    selected.layers = [copy.copy(layer) for layer in cache.layers]  # a layer that grows replaces its tensors
    selected.batch_select_indices(rows)
    return selected
