"""What a model directory must hold; kept apart from the loading, which needs heavy imports."""

from pathlib import Path

from dealrec.errors import ModelError

NEVER_READ = {".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack", ".md"}  # weights in other formats, prose


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


def check_adapter_directory(folder: Path) -> None:
    """Raise ModelError unless the folder holds a PEFT adapter with safetensors weights."""
    missing = [name for name in ("adapter_config.json", "adapter_model.safetensors") if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"The adapter {folder} has no {' and no '.join(missing)}", "Check llm.adapter.")


def model_files(folder: Path) -> list[Path]:
    """The files that decide what the model in the folder computes, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix not in NEVER_READ)
