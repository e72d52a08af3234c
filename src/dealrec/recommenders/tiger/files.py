"""TIGER on the disk: the T5 in Hugging Face format, its semantic ids and its training beside it."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import T5ForConditionalGeneration
from transformers.utils import logging as transformers_logging

from dealrec.columns import ITEM, Id
from dealrec.devices import compute_device
from dealrec.errors import ModelError, first_line
from dealrec.recommenders.files import (
    CONFIG,
    TOKENIZER_CONFIG,
    encoder_files,
    encoder_modules,
    read_json,
    refuse_own_code,
)
from dealrec.recommenders.tiger.semantic_ids import SemanticIds
from dealrec.recommenders.tiger.training import Checkpoint, Epoch

ENCODER_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]  # of the hub's; pickles are not even fetched
MAX_TOKENS = 256  # of a title, where the encoder does not say
IDS, SIZES, CODES = "semantic_ids.parquet", "semantic_ids.json", "codes"


def load_text_encoder(name: str, *, revision: str | None = None, warn: Callable[[str], None] = lambda _: None) -> Any:
    """A SentenceTransformer such as all-MiniLM-L6-v2 in float32 and eval mode, on the GPU if there is one.

    name: a directory, or a model id of the hub. Its modules.json says how token states become an embedding; without
    one, `warn` is told so, and they are averaged (of a decoder the last one is taken). Only safetensors are read,
    and no code that comes with the model is run. Raises ModelError.
    """
    from sentence_transformers import SentenceTransformer

    transformers_logging.disable_progress_bar()
    with _load_errors(f"The text encoder {name!r}", "Give a directory with config.json, safetensors and a tokenizer."):
        folder = Path(name)
        if not folder.is_dir():
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=ENCODER_FILES))
        modules = encoder_modules(folder)
        for path in encoder_files(folder):
            if path.name in (CONFIG, TOKENIZER_CONFIG):
                refuse_own_code(read_json(path), path)
        encoder = SentenceTransformer(
            str(folder),
            device=str(compute_device()),
            model_kwargs={"dtype": torch.float32, "use_safetensors": True},
            local_files_only=True,
            trust_remote_code=False,
        )
    if modules is None:
        encoder.max_seq_length = min(MAX_TOKENS, encoder.max_seq_length or MAX_TOKENS)
        warn(
            f"the text encoder {name!r} has no modules.json, which would say how it pools: the states of a title's"
            " tokens are averaged (of a decoder the last one is taken)"
        )
    return encoder.eval()


def save(folder: Path, model: Any, ids: SemanticIds, items: Sequence[Id]) -> None:
    """Write the model and the semantic id of each item. items: ids of the catalogue, in the order of its rows."""
    folder.mkdir(parents=True, exist_ok=True)
    transformers_logging.disable_progress_bar()
    model.save_pretrained(folder)
    pl.DataFrame({ITEM: items, CODES: ids.codes.tolist()}).write_parquet(folder / IDS)
    (folder / SIZES).write_text(json.dumps({"sizes": ids.sizes}) + "\n")


def load(folder: Path) -> tuple[Any, SemanticIds, list[Id]]:
    """Model in eval mode, semantic ids and item ids, as they were saved. Raises ModelError with the remedy."""
    transformers_logging.disable_progress_bar()
    with _load_errors(f"The TIGER in {folder}", "Train it again."):
        table = pl.read_parquet(folder / IDS, glob=False)
        sizes = tuple(json.loads((folder / SIZES).read_text())["sizes"])
        ids = SemanticIds(torch.tensor(table[CODES].to_list(), dtype=torch.int64).view(-1, len(sizes)), sizes)
        model: Any = T5ForConditionalGeneration.from_pretrained(str(folder), dtype=torch.float32, use_safetensors=True)
        if model.config.vocab_size != ids.vocab_size:
            raise ValueError(f"the model knows {model.config.vocab_size} tokens, the ids use {ids.vocab_size}")
    return model.to(compute_device()).eval(), ids, table[ITEM].to_list()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint as one safetensors file that appears at once under its name."""
    staging = path.with_name(path.name + ".tmp")
    epochs = json.dumps([asdict(epoch) for epoch in checkpoint.epochs])
    save_file(
        {name: value.contiguous() for name, value in checkpoint.tensors.items()}, staging, metadata={"epochs": epochs}
    )
    staging.rename(path)


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint that was saved. Raises ModelError with the remedy."""
    with (
        _load_errors(f"The checkpoint {path}", "Delete it; training starts again."),
        safe_open(path, framework="pt") as file,
    ):
        rows = json.loads(file.metadata()["epochs"])
        epochs = [Epoch(**row | {"valid_levels": tuple(row["valid_levels"])}) for row in rows]
        return Checkpoint(epochs, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 no mapping


@contextmanager
def _load_errors(subject: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        ImportError,
        RuntimeError,
        SafetensorError,
        StrictDataclassError,
        pl.exceptions.PolarsError,
    ) as error:
        raise ModelError(f"{subject} cannot be loaded: {first_line(error)}", remedy) from error
