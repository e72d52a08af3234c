"""What all work with language models shares: an encoded sample, batches of them, the loss on single samples."""

from dealrec.sequences.batches import Encoded, collate, plan_batches
from dealrec.sequences.losses import sequence_losses

__all__ = ["Encoded", "collate", "plan_batches", "sequence_losses"]
