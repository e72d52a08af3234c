"""Fine-tuning of the LLM recommender, few-shot or on everything."""

from dealrec.finetuning.checks import require_saved
from dealrec.finetuning.training import Training, train

__all__ = ["Training", "require_saved", "train"]
