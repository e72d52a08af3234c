"""Effort: how far the LLM is from fitting a sample, as the norm of its loss gradient."""

from dealrec.effort.batching import Encoded, collate, plan_batches
from dealrec.effort.loss import sequence_losses
from dealrec.effort.norms import gradient_norms, norms_and_losses

__all__ = ["Encoded", "collate", "gradient_norms", "norms_and_losses", "plan_batches", "sequence_losses"]
