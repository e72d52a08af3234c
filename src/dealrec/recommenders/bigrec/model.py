"""The LLM and its adapters: loading and attaching."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from peft import LoraConfig, PeftConfig, PeftModel, PeftType, get_peft_model, get_peft_model_state_dict
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFT_TARGETS
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from dealrec.devices import compute_device, resolved_dtype
from dealrec.errors import ModelError, first_line
from dealrec.recommenders.files import ADAPTER_WEIGHTS, check_directory, read_shapes, refuse_own_code

Dtype: TypeAlias = Literal["auto", "float32", "bfloat16"]
Quantization: TypeAlias = Literal["8bit", "4bit"]
USUAL_TARGETS = ["q_proj", "v_proj"]  # what PEFT adapts in most architectures that it knows
# What a folder that is no model of theirs makes transformers and torch raise.
_UNLOADABLE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError, IndexError),
    *(ImportError, RuntimeError, SafetensorError, StrictDataclassError),
)


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
    name: str,
    *,
    revision: str | None = None,
    dtype: Dtype = "auto",
    quantization: Quantization | None = None,
    empty: bool = False,
) -> Any:
    """The causal LM of `load_llm`, without its tokenizer.

    dtype: of the weights; auto: bfloat16 on a GPU that has it, else float32. quantization: of the linear layers, by
    bitsandbytes, which needs a CUDA GPU; dtype is then what they compute in. empty: on the device meta, every weight
    compared by name and shape and none read. Raises ModelError where the weights lack a parameter of the model, which
    transformers would draw at random, for an adapter beside them, and for an encoder-decoder.
    """
    transformers_logging.disable_progress_bar()
    device = compute_device()
    weights_dtype = resolved_dtype(dtype, device)
    options: dict[str, Any] = {}
    if quantization is not None:  # such a model cannot be moved once it is loaded
        options = {"quantization_config": quantization_config(quantization, weights_dtype), "device_map": {"": device}}
    if empty:
        options = {"device_map": {"": "meta"}}
    _read_config(name, revision)
    with _load_errors(name), _without_report():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name,
            revision=revision,
            trust_remote_code=False,  # None: transformers would ask whether to run it
            dtype=weights_dtype,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            output_loading_info=True,
            **options,
        )
    model, loading_info = loaded
    _require_as_saved(name, model, loading_info)
    # What generate is not told it would take from here, such as a repetition penalty that the LLM ships with.
    model.generation_config = GenerationConfig()
    if not options:
        model.to(device)
    model.eval()
    return model


def _read_config(name: str, revision: str | None) -> Any:
    """What config.json says. Raises ModelError for what does not read from the left to the right alone."""
    with _load_errors(name):
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    refuse_own_code(config.to_dict(), name)
    masked = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    if config.is_encoder_decoder or masked:
        kind = "an encoder-decoder" if config.is_encoder_decoder else "an encoder"
        raise ModelError(
            f"The LLM {name!r} is {kind} ({config.model_type}), and BIGRec needs a causal language model",
            "Take a decoder-only one, such as a Llama, Qwen, Gemma or GPT.",
        )
    return config


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
    with _load_errors(name):
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"The tokenizer of {name!r} has no end-of-sequence token",
            "Name the one that the LLM was trained with in tokenizer_config.json (eos_token), or choose another LLM.",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    return tokenizer


def _require_as_saved(name: str, model: Any, loading_info: Mapping[str, Any]) -> None:
    """Raise ModelError unless the model is what the weights of the folder say, and they alone."""
    if loading_info["mismatched_keys"]:
        key, stored, expected = min(loading_info["mismatched_keys"])
        raise ModelError(
            f"In the weights of {name!r} {key} has the shape {list(stored)}, and by config.json {list(expected)}",
            "Put the config.json beside them that they were saved with.",
        )
    if loading_info["missing_keys"] and not getattr(model, "is_quantized", False):  # which adds tensors of its own
        first, *more = sorted(loading_info["missing_keys"])
        raise ModelError(
            f"The weights of {name!r} lack {len(more) + 1:,} of the model's parameters, the first {first};"
            " they would be drawn at random",
            "Give a whole causal language model, its output layer included, with its own config.json.",
        )
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ModelError(
            f"{name!r} holds an adapter, which transformers has attached unasked",
            "Give the model alone as llm.model, and the adapter as llm.adapter.",
        )


@contextmanager
def _without_report() -> Iterator[None]:
    """Have transformers not print which weights did not fit: what matters of it becomes an error."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


@contextmanager
def _load_errors(name: str) -> Iterator[None]:
    try:
        yield
    except _UNLOADABLE as error:
        raise ModelError(
            f"The LLM {name!r} cannot be loaded: {first_line(error)}",
            "Give llm.model a directory with config.json, safetensors and a tokenizer, or a model id within reach.",
        ) from error


def attach_lora(
    model: Any,
    *,
    r: int,
    alpha: int,
    dropout: float,
    target_modules: Sequence[str] | None,
    seed: int,
    tokens: Mapping[str, list[int]] | None = None,
) -> PeftModel:
    """The model with a fresh LoRA adapter; its A is drawn from `seed`, its B is zero. target_modules: None: the usual.

    tokens: rows of embeddings, by the name of their module, that learn beside it.

    With B zero only B has a gradient, and that depends on A's draw: effort and fine-tuning take the same seed,
    so that they speak of the same adapter.
    """
    if target_modules is None:
        target_modules = usual_targets(model)
    settings = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(target_modules),
        task_type="CAUSAL_LM",
        trainable_token_indices=None if tokens is None else dict(tokens),
    )
    names = [name for name, _ in model.named_modules() if name]
    absent = [target for target in target_modules if not any(f".{name}".endswith(f".{target}") for name in names)]
    if absent:  # PEFT would attach the others and say nothing
        raise ModelError(
            f"No LoRA can be attached to {', '.join(absent)}: the LLM has no such layer", _layers_remedy(model)
        )
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fan_in_fan_out is set")  # to what GPT-2's layers need, as it should be
        torch.manual_seed(seed)
        try:
            return get_peft_model(model, settings)
        except ValueError as error:
            raise ModelError(
                f"No LoRA can be attached to {', '.join(target_modules)}: {str(error).splitlines()[0]}",
                _layers_remedy(model),
            ) from error


def usual_targets(model: Any) -> list[str]:
    """The layers that PEFT adapts in the LLM's architecture; q_proj and v_proj where it knows none and they are there.

    By their ends, or whole where some of that name are to be left out. Raises ModelError where there are none, with the
    names of those that there are.
    """
    names = [name for name, _ in model.named_modules() if name]
    known = PEFT_TARGETS.get(model.config.model_type, USUAL_TARGETS)
    if isinstance(known, str) and (matching := [name for name in names if re.fullmatch(known, name)]):
        return matching
    targets = USUAL_TARGETS if isinstance(known, str) else list(known)
    ends = {name.rpartition(".")[2] for name in names}
    if not ends.issuperset(targets):
        raise ModelError(
            f"Which layers LoRA usually adapts in the architecture {model.config.model_type!r} is not known",
            _layers_remedy(model),
        )
    if (decoder := text_part(model)) is model:
        return targets
    prefix = next(name for name, module in model.named_modules() if module is decoder)
    inner = [name for name in names if name.startswith(f"{prefix}.")]
    return [name for name in inner if name.rpartition(".")[2] in targets]


def text_part(model: Any) -> Any:
    """What text passes through: of a model that reads images too its decoder, else the model."""
    return model if model.config.get_text_config() is model.config else model.get_decoder()


def usual_targets_of(name: str, *, revision: str | None = None) -> list[str]:
    """`usual_targets` of an LLM of which no more than config.json is read."""
    config = _read_config(name, revision)
    with _load_errors(name), _without_report(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return usual_targets(model)


def _layers_remedy(model: Any) -> str:
    """Which layers LoRA and effort know; the output layer, often one with the embeddings, is no usual choice."""
    output = model.get_output_embeddings()
    layers = (
        name
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not output
    )
    ends = sorted({name.rpartition(".")[2] for name in layers})
    return f"Set llm.lora.target_modules to some of: {', '.join(ends)}; names or their ends after a dot, no patterns."


def load_adapter(model: Any, folder: Path, *, trainable: bool = False) -> PeftModel:
    """The model with a saved adapter, in eval mode; trainable: its parameters require grad.

    Raises ModelError for an adapter of another model, by the names and shapes of its tensors.
    """
    with _adapter_errors(folder), torch.random.fork_rng():  # PEFT draws an adapter, then reads this one
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable).eval()
    _require_fitting(adapted, folder)
    return adapted


def attach_empty_adapter(model: Any, folder: Path) -> PeftModel:
    """A model on the device meta with a saved adapter's layers, none of its numbers read; raises as `load_adapter`."""
    with _adapter_errors(folder), torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PEFT's; they come when the adapter is loaded
        config: Any = PeftConfig.from_pretrained(str(folder))
        config.init_lora_weights = False  # some ways to start an adapter need the weights
        adapted = cast("PeftModel", get_peft_model(model, config))
    _require_fitting(adapted, folder)
    return adapted


def _require_fitting(model: PeftModel, folder: Path) -> None:
    """Raise ModelError unless every tensor of a saved LoRA has its place in the model, and every place its tensor."""
    if model.active_peft_config.peft_type != PeftType.LORA:
        return
    saved = read_shapes(folder / ADAPTER_WEIGHTS)
    adapter_shapes = {
        name: tuple(value.shape)
        for name, value in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }
    base_shapes = {
        f"base_model.model.{name}": tuple(value.shape) for name, value in model.get_base_model().state_dict().items()
    }
    model_shapes = {**base_shapes, **adapter_shapes}  # embeddings that were resized may be saved beside the adapter
    for names, reason in (
        ([name for name in saved if name not in model_shapes], "the LLM has no place for"),
        ([name for name in adapter_shapes if name not in saved], "it lacks"),
        ([name for name in saved if model_shapes.get(name) != saved[name]], "another shape than the LLM's has"),
    ):
        if names:
            raise _adapter_error(folder, f"{reason} {min(names)}" + f" and {len(names) - 1:,} more" * (len(names) > 1))


@contextmanager
def _adapter_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except _UNLOADABLE as error:
        raise _adapter_error(folder, first_line(error)) from error


def _adapter_error(folder: Path, reason: str) -> ModelError:
    return ModelError(f"The adapter {folder} does not go with the LLM: {reason}", "Check llm.adapter and llm.model.")
