"""Encoded samples, and batches of sequences alike in length."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dealrec.sequences.losses import IGNORED


@dataclass(frozen=True)
class Encoded:
    """One sample as tokens.

    Decoder-only: input_ids hold the prompt, then the completion; labels, as long, the completion's tokens, -100
    elsewhere. Encoder-decoder: input_ids are what the encoder reads, labels what the decoder is to write.
    """

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Sample:
    """A sample as tokens and, of a recommender that reads text, as the same in text.

    turn: what of the prompt is the user's in a chat; None: the prompt is no chat.
    """

    tokens: Encoded
    prompt: str = ""
    completion: str = ""
    turn: str | None = None


def plan_batches(
    lengths: Sequence[int],
    *,
    batch_tokens: float = math.inf,
    batch_size: float = math.inf,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """Indices of sequences, batch by batch: the longest first, each batch as large as both limits let it be.

    batch_tokens: of a batch with its padding; a sequence that is longer alone makes a batch of its own. batch_size:
    sequences in a batch. The plan depends on the lengths only. With a generator, sequences of one length and the
    batches themselves are shuffled; without, sequences of one length stay in their order.

    >>> plan_batches([3, 9, 4, 4], batch_tokens=9)
    [[1], [2, 3], [0]]
    >>> plan_batches([3, 9, 4, 4], batch_size=3)
    [[1, 2, 3], [0]]
    """
    plan = plan_indices(
        torch.tensor(lengths, dtype=torch.int64), batch_tokens=batch_tokens, batch_size=batch_size, generator=generator
    )
    return [batch.tolist() for batch in plan]


def plan_indices(
    lengths: Tensor,
    *,
    batch_tokens: float = math.inf,
    batch_size: float = math.inf,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """`plan_batches` of lengths [n], as tensors: nothing is done for each sequence in Python."""
    ties = torch.randperm(len(lengths), generator=generator) if generator else torch.arange(len(lengths))
    order = ties[lengths[ties].argsort(descending=True, stable=True)]
    batches, begin = [], 0
    while begin < len(order):
        # The first of a batch is its longest, so it sets the padded length of all.
        fitting = batch_tokens // max(1, int(lengths[order[begin]]))
        end = begin + int(max(1, min(batch_size, fitting, len(order))))
        batches.append(order[begin:end])
        begin = end
    if generator:
        batches = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
    return batches


def collate(samples: Sequence[Encoded], *, pad_id: int, device: torch.device | None = None) -> dict[str, Tensor]:
    """input_ids and attention_mask [B, T], labels [B, L], each padded on the right to its longest row.

    L is T where the labels are as long as the inputs, as for decoder-only models.
    """

    def padded(rows: Sequence[list[int]], fill: int) -> Tensor:
        width = max(map(len, rows))
        return torch.tensor([row + [fill] * (width - len(row)) for row in rows], dtype=torch.long, device=device)

    return {
        "input_ids": padded([sample.input_ids for sample in samples], pad_id),
        "attention_mask": padded([[1] * len(sample.input_ids) for sample in samples], 0),
        "labels": padded([sample.labels for sample in samples], IGNORED),
    }
