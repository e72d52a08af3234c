"""What a model directory must hold; kept apart from the loading, which needs heavy imports."""

import json
from collections.abc import Callable
from pathlib import Path

from dealrec.errors import ModelError

NEVER_READ = {".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack", ".md"}  # weights in other formats, prose


def check_model(
    name: str, *, setting: str, revision: str | None = None, check: Callable[..., None] | None = None
) -> None:
    """A folder holds a model; an id is one of the hub's, so that a typing error is not met after the surrogate.

    check: of a folder; None: `check_directory`.
    """
    if Path(name).is_absolute():
        (check or check_directory)(Path(name), setting=setting)
    else:
        check_hub(name, setting=setting, revision=revision)


def check_directory(folder: Path, *, setting: str = "llm.model") -> None:
    """Raise ModelError unless the folder holds a model's configuration, safetensors weights and a tokenizer."""
    if not folder.is_dir():
        raise ModelError(f"There is no model directory {folder}", f"Check {setting}.")
    if not (folder / "config.json").is_file():
        raise ModelError(f"The model directory {folder} has no config.json", "Save the model with save_pretrained.")
    weights = [path for path in folder.glob("*.safetensors") if path.stat().st_size > 0]
    if not weights:
        pickles = any(folder.glob("*.bin"))
        remedy = (
            "Convert the .bin weights to safetensors: pickles are never opened."
            if pickles
            else "Save them there with save_pretrained."
        )
        raise ModelError(f"The model directory {folder} has no weights (*.safetensors)", remedy)
    if not any(folder.glob("tokenizer*")):
        raise ModelError(f"The model directory {folder} has no tokenizer", "Save it there with save_pretrained.")


def check_hub(name: str, *, setting: str, revision: str | None = None) -> None:
    """Raise ModelError unless the model is in the hub's cache here, or the hub has it; nothing is downloaded."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    try:
        if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
            return
        get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision))
    except Exception as error:  # the hub's HTTP library, which changes, has errors of its own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"{setting} {name!r} is no folder here, and the model hub does not give it: {reason}",
            f"Name a folder in Hugging Face format in {setting}, or check the id and the connection.",
        ) from None


def check_adapter_directory(folder: Path) -> None:
    """Raise ModelError unless the folder holds a PEFT adapter with safetensors weights."""
    missing = [name for name in ("adapter_config.json", "adapter_model.safetensors") if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"The adapter {folder} has no {' and no '.join(missing)}", "Check llm.adapter.")


def encoder_modules(folder: Path) -> list[Path] | None:
    """The folders of the modules of a sentence encoder that its modules.json names; None without that file.

    Raises ModelError where a module brings code of its own, or weights as a pickle alone.
    """
    listing = folder / "modules.json"
    if not listing.is_file():
        return None
    try:
        named = [(str(module["type"]), folder / module["path"]) for module in json.loads(listing.read_text("utf-8"))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{listing} cannot be read: {error!r}", "Save the encoder again.") from None
    for kind, module in named:
        if not kind.startswith("sentence_transformers."):
            raise ModelError(f"{listing} names {kind}, code that comes with the model", "Take another text encoder.")
        if (module / "pytorch_model.bin").exists() and not any(module.glob("*.safetensors")):
            raise ModelError(
                f"{module / 'pytorch_model.bin'} is a pickle, and those are never opened",
                "Save the encoder again, as safetensors.",
            )
    return [module for _, module in named]


def check_encoder(folder: Path, *, setting: str) -> None:
    """Raise ModelError unless the folder holds a sentence encoder, or a model whose token states can be averaged."""
    check_directory((encoder_modules(folder) or [folder])[0], setting=setting)


def encoder_files(folder: Path) -> list[Path]:
    """The files that decide what the sentence encoder in the folder computes, in the order of its modules."""
    modules = [module for module in encoder_modules(folder) or () if module.is_dir() and not module.samefile(folder)]
    return [path for each in (folder, *modules) for path in model_files(each)]


def model_files(folder: Path) -> list[Path]:
    """The files that decide what the model in the folder computes, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix not in NEVER_READ)
