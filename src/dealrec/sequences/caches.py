"""Keys and values that a model goes on from."""

from inspect import signature
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel


def base_model(model: nn.Module) -> Any:
    """The transformers model within: the wrappers are to be called, as they join gradients, but say nothing of it."""
    from peft import PeftModel  # takes seconds, which those who only plan batches should not spend

    inner = model.module if isinstance(model, DistributedDataParallel) else model
    return inner.get_base_model() if isinstance(inner, PeftModel) else inner


def cache_keyword(model: nn.Module) -> str:
    """What the model calls a transformers Cache in its forward and in `generate`.

    `past_key_values` became `cache` in transformers 5.24, which takes the old name until 5.40.
    """
    return "cache" if "cache" in signature(base_model(model).forward).parameters else "past_key_values"
