"""The LLM and its adapters: loading and attaching."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging

from dealrec.errors import ModelError
from dealrec.recommenders.files import check_directory


def load_llm(name: str, *, revision: str | None = None) -> tuple[Any, Any]:
    """The causal LM in float32 and eval mode, on the GPU if there is one, and its tokenizer.

    name: a directory in Hugging Face format, or a model id of its hub. Only safetensors are read: a pickle
    is never opened. Raises ModelError with the remedy.
    """
    tokenizer = load_tokenizer(name, revision=revision)
    return load_model(name, revision=revision), tokenizer


def load_model(name: str, *, revision: str | None = None) -> Any:
    """The causal LM of `load_llm`, without its tokenizer."""
    transformers_logging.disable_progress_bar()
    with _explained(name):
        model = AutoModelForCausalLM.from_pretrained(name, revision=revision, dtype=torch.float32, use_safetensors=True)
    # What generate is not told it would take from here, such as a repetition penalty that the LLM ships with.
    model.generation_config = GenerationConfig()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)  # type: ignore[arg-type]
    return model.eval()


def load_tokenizer(name: str, *, revision: str | None = None) -> Any:
    """The tokenizer of an LLM, with a padding token. Raises ModelError with the remedy."""
    if Path(name).is_absolute():
        check_directory(Path(name))
    with _explained(name):
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"The tokenizer of {name!r} has no end-of-sequence token", "Choose another LLM.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    return tokenizer


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, SafetensorError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"The LLM {name!r} cannot be loaded: {reason}",
            "Give llm.model a directory with config.json, safetensors and a tokenizer, or a model id within reach.",
        ) from error


def attach_lora(
    model: Any, *, r: int, alpha: int, dropout: float, target_modules: Sequence[str], seed: int
) -> PeftModel:
    """The model with a fresh LoRA adapter; its A is drawn from `seed`, its B is zero.

    With B zero only B has a gradient, and that depends on A's draw: effort and fine-tuning take the same seed,
    so that they speak of the same adapter.
    """
    settings = LoraConfig(
        r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(target_modules), task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return get_peft_model(model, settings)
        except ValueError as error:
            linear = sorted(
                {
                    name.rpartition(".")[2]
                    for name, module in model.named_modules()
                    if isinstance(module, torch.nn.Linear)
                }
            )
            raise ModelError(
                f"No LoRA can be attached to {', '.join(target_modules)}: {str(error).splitlines()[0]}",
                f"Set llm.lora.target_modules to some of: {', '.join(linear)}.",
            ) from error


def load_adapter(model: Any, folder: Path, *, trainable: bool = False) -> PeftModel:
    """The model with a saved adapter, in eval mode; trainable: its parameters require grad."""
    try:
        return PeftModel.from_pretrained(model, str(folder), is_trainable=trainable).eval()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"The adapter {folder} does not go with the LLM: {reason}", "Check llm.adapter and llm.model."
        ) from error
