"""The LLM and its adapters: loading and attaching."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig
from transformers.utils import logging as transformers_logging

from dealrec.devices import compute_device, resolved_dtype
from dealrec.errors import ModelError
from dealrec.recommenders.files import check_directory

Dtype: TypeAlias = Literal["auto", "float32", "bfloat16"]
Quantization: TypeAlias = Literal["8bit", "4bit"]


def load_llm(
    name: str, *, revision: str | None = None, dtype: Dtype = "auto", quantization: Quantization | None = None
) -> tuple[Any, Any]:
    """The causal LM in eval mode, on the GPU if there is one, and its tokenizer.

    name: a directory in Hugging Face format, or a model id of its hub. Only safetensors are read: a pickle
    is never opened. dtype, quantization: of its weights, as `load_model` takes them. Raises ModelError with the remedy.
    """
    tokenizer = load_tokenizer(name, revision=revision)
    return load_model(name, revision=revision, dtype=dtype, quantization=quantization), tokenizer


def load_model(
    name: str, *, revision: str | None = None, dtype: Dtype = "auto", quantization: Quantization | None = None
) -> Any:
    """The causal LM of `load_llm`, without its tokenizer.

    dtype: of the weights; auto: bfloat16 on a GPU that has it, else float32. quantization: of the linear layers, by
    bitsandbytes, which needs a CUDA GPU; dtype is then what they compute in.
    """
    transformers_logging.disable_progress_bar()
    device = compute_device()
    chosen = resolved_dtype(dtype, device)
    options: dict[str, Any] = {}
    if quantization is not None:  # such a model cannot be moved once it is loaded
        options = {"quantization_config": quantization_config(quantization, chosen), "device_map": {"": device}}
    with _explained(name):
        model = AutoModelForCausalLM.from_pretrained(
            name, revision=revision, dtype=chosen, use_safetensors=True, **options
        )
    # What generate is not told it would take from here, such as a repetition penalty that the LLM ships with.
    model.generation_config = GenerationConfig()
    if quantization is None:
        model.to(device)  # type: ignore[arg-type]
    return model.eval()


def quantization_config(name: Quantization, dtype: torch.dtype) -> BitsAndBytesConfig:
    """LLM.int8 (Dettmers et al., 2022), or the doubly quantised NF4 of QLoRA (Dettmers et al., 2023).

    The base is frozen and adapters are float32, as PEFT makes them over half precision. So its
    `prepare_model_for_kbit_training` is not called: what it adds is the rest of the base in float32.
    """
    if name == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


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
        with torch.random.fork_rng():  # PEFT draws an adapter before it reads the one that there is
            return PeftModel.from_pretrained(model, str(folder), is_trainable=trainable).eval()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"The adapter {folder} does not go with the LLM: {reason}", "Check llm.adapter and llm.model."
        ) from error
