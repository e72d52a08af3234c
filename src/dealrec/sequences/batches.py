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
    ties = torch.randperm(len(lengths), generator=generator).tolist() if generator else range(len(lengths))
    batches: list[list[int]] = []
    for index in sorted(ties, key=lambda i: -lengths[i]):
        batch = batches[-1] if batches else []
        # The first of a batch is its longest, so it sets the padded length of all.
        if batch and len(batch) < batch_size and lengths[batch[0]] * (len(batch) + 1) <= batch_tokens:
            batch.append(index)
        else:
            batches.append([index])
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
