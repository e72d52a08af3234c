"""Few-shot fine-tuning of the LLM recommender."""

from dealrec.finetuning.training import finetune

__all__ = ["finetune"]
