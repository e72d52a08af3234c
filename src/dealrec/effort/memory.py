"""How large batches may be within a budget of memory, from the measured peaks of a few small ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import nnls

from dealrec.sequences.batches import Encoded, plan_batches
from dealrec.sequences.losses import IGNORED

_LARGEST = 2**22  # tokens per batch that are tried at most
# Over batches of many shapes the allocator of a CPU holds more than the largest of them takes: what batches add to the
# process was up to 1.3 times what one adds, with SmolLM2-135M.
SLACK = 1.3


@dataclass(frozen=True)
class Size:
    """Of a batch with its padding: tokens that are read, and places whose logits are computed."""

    tokens: int
    logits: int


@dataclass(frozen=True)
class PeakMemory:
    """Peak memory in bytes as a linear function of a batch's size: what is there anyway, and what a batch adds."""

    fixed: float
    per_token: float
    per_logit: float

    def of(self, size: Size) -> float:
        """In bytes.

        >>> PeakMemory(100.0, 2.0, 3.0).of(Size(tokens=10, logits=1))
        123.0
        """
        return self.fixed + self.per_token * size.tokens + self.per_logit * size.logits


def probes(samples: Sequence[Encoded]) -> list[list[Encoded]]:
    """Three small batches whose peaks tell the three numbers apart: the longest sample as it is, two and two times two
    of it, and two with labels throughout. Tokens and logits do not grow in proportion among them.
    """
    longest = max(samples, key=lambda sample: len(sample.input_ids))
    if len(longest.labels) == len(longest.input_ids):
        labelled = replace(longest, labels=longest.input_ids)
    else:
        labelled = replace(longest, labels=longest.labels * 4)
    return [[longest], [longest] * 4, [labelled] * 2]


def batch_size_of(batch: Sequence[Encoded]) -> Size:
    """The size of what `collate` and `sequence_losses` make of it."""
    longest = max(len(sample.input_ids) for sample in batch)
    # The first label of a decoder-only model is predicted from nothing, so it is never asked for.
    first = 1 if all(len(sample.labels) == len(sample.input_ids) for sample in batch) else 0
    columns = {i for sample in batch for i, label in enumerate(sample.labels) if i >= first and label != IGNORED}
    return Size(len(batch) * longest, len(batch) * len(columns))


def fit_peak(sizes: Sequence[Size], peaks: Sequence[int]) -> PeakMemory:
    """The linear function of least squares with no negative number; peaks in bytes."""
    rows = np.array([[1.0, size.tokens, size.logits] for size in sizes])
    scale = rows.max(0).clip(min=1)
    coefficients, _ = nnls(rows / scale, np.array(peaks, dtype=float))
    return PeakMemory(*(coefficients / scale).tolist())


def largest_batches(shards: Sequence[Sequence[Encoded]], memory: PeakMemory, *, budget: float) -> tuple[int, float]:
    """The largest `batch_tokens` whose every batch fits, and the peak in bytes that is expected of its batches.

    shards: samples that are batched together. budget: bytes. What the batches add is taken `SLACK` times. Powers of
    two and halves between them are tried, so that measurements which differ a little lead to the same batches. Batches
    of one are returned where nothing fits.
    """
    largest = (1, _expected_peak(shards, memory, 1))
    tokens = 16
    while tokens <= _LARGEST:
        for candidate in (tokens, tokens * 3 // 2):
            expected = _expected_peak(shards, memory, candidate)
            if expected > budget:
                return largest
            largest = (candidate, expected)
        if all(len(_plan(shard, tokens)) == 1 for shard in shards):
            break
        tokens *= 2
    return largest


def _expected_peak(shards: Sequence[Sequence[Encoded]], memory: PeakMemory, batch_tokens: int) -> float:
    plans = ((shard, _plan(shard, batch_tokens)) for shard in shards)
    largest = max(memory.of(batch_size_of([shard[i] for i in batch])) for shard, plan in plans for batch in plan)
    return memory.fixed + SLACK * (largest - memory.fixed)


def _plan(shard: Sequence[Encoded], batch_tokens: int) -> list[list[int]]:
    return plan_batches([len(sample.input_ids) for sample in shard], batch_tokens=batch_tokens)
