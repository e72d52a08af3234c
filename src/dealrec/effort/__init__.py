"""Effort: how far the LLM is from fitting a sample, as the norm of its loss gradient."""

from dealrec.effort.norms import gradient_norms, norms_and_losses

__all__ = ["gradient_norms", "norms_and_losses"]
