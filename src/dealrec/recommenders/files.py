"""What a model's or an adapter's folder must hold, read without loading it: JSON, lengths and safetensors headers."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dealrec.errors import ModelError, first_line

NEVER_READ = {".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack", ".md"}  # weights in other formats, prose
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
VOCABULARIES = (TOKENIZER, "*.model", "vocab.*", "*.tiktoken", "tekken.json")
READ_JSON = (
    *(CONFIG, INDEX, "generation_config.json", TOKENIZER, TOKENIZER_CONFIG),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json"),
)
TEXTS = {".model", ".txt", ".tiktoken", ".jinja", ".py"}
POINTER = b"version https://git-lfs"  # what Git puts in the place of a file that is stored elsewhere
LONGEST_HEADER = 100_000_000  # bytes, as the format has it
COPY_AGAIN = "Copy or download it again."

Shapes = dict[str, tuple[int, ...]]  # of the tensors of a file, by name


def check_model(
    name: str, *, setting: str, revision: str | None = None, check: Callable[..., None] | None = None
) -> Path | None:
    """The folder of a model that is whole, named by its path or by its id of the hub; None: it is on the hub alone.

    check: of a folder that is named by its path; None: `check_directory`. Raises ModelError, so that a typing error is
    not met after the surrogate.
    """
    if not Path(name).is_absolute():
        return check_hub(name, setting=setting, revision=revision)
    (check or check_directory)(Path(name), setting=setting)
    return Path(name)


def check_directory(folder: Path, *, setting: str = "llm.model") -> None:
    """Raise ModelError unless the folder holds a model: its configuration, safetensors weights and a tokenizer, whole.

    setting: what named it, for the remedy.
    """
    if not folder.is_dir():
        raise ModelError(f"There is no model directory {folder}", f"Check {setting}.")
    _require_whole(folder, setting=setting)
    if (fault := _incomplete(folder, setting=setting)) is not None:
        raise fault


def check_hub(name: str, *, setting: str, revision: str | None = None) -> Path | None:
    """The folder of a model of the hub, if this machine's cache has all of it; nothing is downloaded.

    Raises ModelError where neither the cache nor the hub has the model, and for a file of the cache that is damaged.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    try:
        config = try_to_load_from_cache(name, CONFIG, revision=revision)
        if not isinstance(config, str):
            get_hf_file_metadata(hf_hub_url(name, CONFIG, revision=revision))
            return None
    except Exception as error:  # the hub's HTTP library, which changes, has errors of its own
        raise _unreachable(name, setting, error) from None
    folder = Path(config).parent
    _require_whole(folder, setting=setting)
    fault = _incomplete(folder, setting=setting)
    if fault is not None and constants.HF_HUB_OFFLINE:
        raise fault
    return folder if fault is None else None


def hub_commit(name: str, *, setting: str, revision: str | None = None) -> str:
    """The commit of the hub that a branch or tag stands for on this machine: what its cache holds, if it does.

    Else the hub is asked, and the model's config.json stays in the cache, so that the answer is the same from then on,
    wherever the branch goes. Raises ModelError where neither has the model.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(name, CONFIG, revision=revision)
        file = cached if isinstance(cached, str) else hf_hub_download(name, CONFIG, revision=revision)
    except Exception as error:  # as in `check_hub`
        raise _unreachable(name, setting, error) from None
    return Path(file).parent.name


def _unreachable(name: str, setting: str, error: Exception) -> ModelError:
    return ModelError(
        f"{setting} {name!r} is no folder here, and the model hub does not give it: {first_line(error)}",
        f"Name a folder in Hugging Face format in {setting}, or check the id and the connection.",
    )


def refuse_own_code(settings: Mapping[str, Any], name: object) -> None:
    """Raise ModelError for a model that asks for code of its own to be run, a kernel of the hub for attention too.

    settings: what stands in its config.json or tokenizer_config.json; name: of that file, or of the model.
    """
    auto_map, attention = settings.get("auto_map"), settings.get("attn_implementation")
    if auto_map:
        raise ModelError(
            f"{name} asks for code of its own (auto_map), and dealrec runs none of a model: trust_remote_code is off",
            "Take a model whose architecture transformers has; if it has this one, too, delete auto_map there.",
        )
    if isinstance(attention, str) and "/" in attention:
        raise ModelError(
            f"{name} asks for a kernel of the hub, {attention!r}, and dealrec runs no code of a model",
            "Delete attn_implementation there.",
        )


def check_adapter_directory(folder: Path) -> None:
    """Raise ModelError unless the folder holds a PEFT adapter with safetensors weights, whole."""
    if not (folder / ADAPTER_CONFIG).is_file() and (folder / CONFIG).is_file():
        raise ModelError(
            f"The adapter {folder} has no {ADAPTER_CONFIG}: it holds a whole model", "Give that folder as llm.model."
        )
    missing = [name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if not (folder / name).is_file()]
    if missing == [ADAPTER_WEIGHTS] and (folder / "adapter_model.bin").is_file():
        raise ModelError(
            f"The adapter {folder} has no {ADAPTER_WEIGHTS}, and adapter_model.bin is a pickle, which is never opened",
            "Load and save it once with PEFT.",
        )
    if missing:
        raise ModelError(f"The adapter {folder} has no {' and no '.join(missing)}", "Check llm.adapter.")
    if "peft_type" not in read_json(folder / ADAPTER_CONFIG):
        raise ModelError(f"{folder / ADAPTER_CONFIG} names no peft_type", "Save the adapter with PEFT.")
    read_shapes(folder / ADAPTER_WEIGHTS)


def is_quantized(folder: Path) -> bool:
    """Whether a model's weights were saved quantised, so that their names and shapes are not those of its layers."""
    return "quantization_config" in read_json(folder / CONFIG)


def adapter_base(folder: Path) -> object:
    """What an adapter's folder says that it was trained on: the path or the id of a model, or nothing."""
    return read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")


def model_files(folder: Path) -> list[Path]:
    """The files that decide what the model in the folder computes, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix not in NEVER_READ)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ModelError for a Git-LFS pointer, an empty file, and what is no JSON object."""
    content = _first_bytes(path, -1)
    if not content.strip():
        raise ModelError(f"{path} is empty", COPY_AGAIN)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}", COPY_AGAIN) from None
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds no JSON object", COPY_AGAIN)
    return value


def read_shapes(path: Path) -> Shapes:
    """Shapes of a safetensors file's tensors, from its header. Raises ModelError unless it is as long as that says.

    The format: 8 bytes, the header's length N; N bytes of JSON with the place of each tensor in what follows; the data.
    """
    _first_bytes(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, LONGEST_HEADER):
            raise _truncated(path, f"of its header's {length:,} bytes it has {max(0, size - 8):,}")
        header = file.read(length)
    try:
        tensors = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        shapes = {name: tuple(entry["shape"]) for name, entry in tensors.items()}
        end = 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise _truncated(path, "its header cannot be read") from None
    if size != end:
        raise _truncated(path, f"it has {size:,} bytes, and its header means {end:,}")
    return shapes


def _require_whole(folder: Path, *, setting: str) -> None:
    """Raise ModelError for a file that transformers would read and that is damaged."""
    for path in model_files(folder):
        if path.name in READ_JSON:
            read_json(path)
        elif path.suffix in TEXTS:
            _first_bytes(path)
    if (folder / ADAPTER_CONFIG).is_file() and (folder / CONFIG).is_file():
        remedy = f"Move {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS} to a folder of their own"
        raise ModelError(
            f"The model directory {folder} holds an adapter beside the model, which transformers would attach unasked",
            f"{remedy}; to start from the adapter, give that folder as llm.adapter."
            if setting == "llm.model"
            else f"{remedy}.",
        )
    for name in (CONFIG, TOKENIZER_CONFIG):
        if (folder / name).is_file():
            refuse_own_code(read_json(folder / name), folder / name)
    if (folder / CONFIG).is_file() and not isinstance(read_json(folder / CONFIG).get("model_type"), str):
        raise ModelError(
            f"{folder / CONFIG} names no model_type, so that nobody knows what model it is",
            "Save the model with save_pretrained.",
        )
    if (folder / TOKENIZER).is_file() and "model" not in read_json(folder / TOKENIZER):
        raise ModelError(f"{folder / TOKENIZER} holds no tokenizer", COPY_AGAIN)
    for path in _weights(folder):
        if path.is_file():
            read_shapes(path)


def _incomplete(folder: Path, *, setting: str) -> ModelError | None:
    """What the folder lacks of a model."""
    if not (folder / CONFIG).is_file():
        if (folder / ADAPTER_CONFIG).is_file():
            base = adapter_base(folder) or "its base"
            return ModelError(
                f"{folder} is a PEFT adapter of {base}, not a model",
                f"Give llm.model {base} and llm.adapter this folder."
                if setting == "llm.model"
                else f"Check {setting}.",
            )
        return ModelError(f"The model directory {folder} has no config.json", "Save the model with save_pretrained.")
    weights = _weights(folder)
    if not weights:
        pickles = any(folder.glob("*.bin"))
        remedy = (
            "Convert the .bin weights to safetensors: pickles are never opened."
            if pickles
            else "Save them there with save_pretrained."
        )
        return ModelError(f"The model directory {folder} has no weights (*.safetensors)", remedy)
    missing = [path.name for path in weights if not path.is_file()]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        return ModelError(
            f"The model directory {folder} has no {missing[0]}{more}, which {INDEX} names",
            "Copy or download what is missing.",
        )
    if not any(any(folder.glob(pattern)) for pattern in VOCABULARIES):
        return ModelError(
            f"The model directory {folder} has no tokenizer (tokenizer.json)", "Save it there with save_pretrained."
        )
    return None


def encoder_modules(folder: Path) -> list[Path] | None:
    """The folders of the modules of a sentence encoder that its modules.json names; None without that file.

    Raises ModelError where a module brings code of its own, or weights as a pickle alone.
    """
    listing = folder / "modules.json"
    if not listing.is_file():
        return None
    try:
        entries = json.loads(listing.read_text("utf-8"))
        modules = [(str(entry["type"]), _within(folder, entry["path"], listing)) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{listing} cannot be read: {error!r}", "Save the encoder again.") from None
    for kind, path in modules:
        if not kind.startswith("sentence_transformers."):
            raise ModelError(f"{listing} names {kind}, code that comes with the model", "Take another text encoder.")
        if not path.is_dir() and not kind.endswith(".Normalize"):  # which has no file
            raise ModelError(f"{listing} names {path.name}, which is not there", "Copy or download the whole folder.")
        if (path / "pytorch_model.bin").exists() and not any(path.glob("*.safetensors")):
            raise ModelError(
                f"{path / 'pytorch_model.bin'} is a pickle, and those are never opened",
                "Save the encoder again, as safetensors.",
            )
    return [path for _, path in modules]


def check_encoder(folder: Path, *, setting: str) -> None:
    """Raise ModelError unless the folder holds a sentence encoder, or a model whose token states can be averaged."""
    transformer = (encoder_modules(folder) or [folder])[0]
    check_directory(transformer, setting=setting)
    for path in encoder_files(folder):
        if path.parent in (folder, transformer) and "sentence_" not in path.name:
            continue  # of the transformer, looked at above, or read by nobody
        if path.suffix == ".json":
            read_json(path)
        elif path.suffix == ".safetensors":
            read_shapes(path)


def encoder_files(folder: Path) -> list[Path]:
    """The files that decide what the sentence encoder in the folder computes, in the order of its modules."""
    modules = [module for module in encoder_modules(folder) or () if module.is_dir() and not module.samefile(folder)]
    return [path for part in (folder, *modules) for path in model_files(part)]


def _weights(folder: Path) -> list[Path]:
    """The files of weights that transformers would read, there or not: the one, or those that the index names."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        return []
    names = read_json(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(f"{folder / INDEX} names no files (weight_map)", COPY_AGAIN)
    return [_within(folder, name, folder / INDEX) for name in sorted(set(names.values()))]


def _within(folder: Path, name: str, listing: Path) -> Path:
    """The path of a file that a listing of the folder names. Raises ModelError for one that is elsewhere."""
    path = Path(os.path.normpath(folder / name))
    if not path.is_relative_to(folder):
        raise ModelError(f"{listing} names {name!r}, which is not in the folder", COPY_AGAIN)
    return path


def _first_bytes(path: Path, length: int = len(POINTER)) -> bytes:
    """The first bytes of a file; -1: all. Raises ModelError for a Git-LFS pointer, and where it cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(length)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror})", "Check its permissions.") from None
    if content.startswith(POINTER):
        raise ModelError(f"{path} is a Git-LFS pointer", "Fetch the file itself: git lfs pull.")
    return content


def _truncated(path: Path, reason: str) -> ModelError:
    return ModelError(f"{path} is no whole safetensors file: {reason}", COPY_AGAIN)
