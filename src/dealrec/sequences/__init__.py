"""What all work with language models shares: an encoded sample, batches of them, the loss on single samples."""

from dealrec.sequences.batches import Encoded, Sample, collate, plan_batches
from dealrec.sequences.caches import base_model, cache_keyword
from dealrec.sequences.losses import IGNORED, sequence_losses

__all__ = [
    "IGNORED",
    "Encoded",
    "Sample",
    "base_model",
    "cache_keyword",
    "collate",
    "plan_batches",
    "sequence_losses",
]
