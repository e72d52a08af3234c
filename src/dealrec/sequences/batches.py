"""Batches of encoded samples within a number of tokens."""

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
    """A sample as tokens and, of a recommender that reads text, as the same in text."""

    tokens: Encoded
    prompt: str = ""
    completion: str = ""


def plan_batches(lengths: Sequence[int], *, batch_tokens: int) -> list[list[int]]:
    """Indices of samples, batch by batch: the longest first, each batch at most `batch_tokens` with its padding.

    A sample that is longer than that alone makes a batch of its own. The plan depends on the lengths only.

    >>> plan_batches([3, 9, 4, 4], batch_tokens=9)
    [[1], [2, 3], [0]]
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for index in order:
        # The first of a batch is its longest, so it sets the padded length of all.
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
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
