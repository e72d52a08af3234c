"""A tiny random LLM, a small made-up data set, and a config that goes with them."""

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: on tiny tensors threads only wait for each other

import numpy as np
import polars as pl
import pytest
import yaml

USERS, ITEMS = 40, 30

Cli = Callable[..., tuple[int, str, str]]


def pytest_collection_finish() -> None:
    spare_imports()


def spare_imports() -> None:
    """Keep the collector, which stages call, from going through all that was imported: a quarter of a second each."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers over bytes, in Hugging Face format; what works with it has then been imported."""
    import peft  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer  # noqa: F401

    folder = tmp_path_factory.mktemp("tiny-llm")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<|pad|>", "<|end|>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    spare_imports()
    return folder


@pytest.fixture(scope="session")
def text_encoder(tmp_path_factory: pytest.TempPathFactory, tiny_llm: Path) -> Path:
    """A random BERT of one layer with the tiny LLM's tokenizer, in Hugging Face format."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = tmp_path_factory.mktemp("text-encoder")
    tokenizer = AutoTokenizer.from_pretrained(tiny_llm)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes, initializer_range=1.0)).save_pretrained(folder)
    return folder


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Call the entry point in this process; exit status, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        from dealrec.cli import main

        monkeypatch.setattr(sys, "argv", ["dealrec", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            status: Any = 0
        except SystemExit as exit_:
            status = exit_.code or 0
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return call


def made_interactions(*, users: int = USERS, items: int = ITEMS, seed: int = 0) -> pl.DataFrame:
    """Each user walks through the items from a place of their own, now and then jumping."""
    draw = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        place = int(draw.integers(items))
        for _ in range(int(draw.integers(4, 12))):
            rows.append((f"u{user:03d}", place, float(draw.random())))
            place = int(draw.integers(items)) if draw.random() < 0.2 else (place + 1) % items
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def made_items(*, items: int = ITEMS) -> pl.DataFrame:
    """Items with titles; two of them share one."""
    return pl.DataFrame({"item_id": range(items), "title": [f"Film {i % (items - 1)}" for i in range(items)]})


@pytest.fixture
def write_config(tmp_path: Path, tiny_llm: Path) -> Callable[..., Path]:
    """Write a small data set and a config for it; keyword arguments replace sections of the config."""

    def write(folder: Path = tmp_path, **sections: Any) -> Path:
        return write_small_config(folder, tiny_llm, **sections)

    return write


def write_small_config(folder: Path, llm: Path, /, *, users: int = USERS, **sections: Any) -> Path:
    """A small data set and a config for it; keyword arguments replace sections of the config."""
    folder.mkdir(exist_ok=True)
    made_interactions(users=users).write_parquet(folder / "interactions.parquet")
    made_items().write_parquet(folder / "items.parquet")
    content = small_settings(llm)
    for name, section in sections.items():
        content[name] = {**content.get(name, {}), **section} if isinstance(section, dict) else section
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def sections(tiny_llm: Path) -> dict[str, Any]:
    """Sections of the settings that make the run small, as keyword arguments of `dealrec.prune`."""
    settings = small_settings(tiny_llm)
    del settings["seed"]
    return settings


def small_settings(llm: Path) -> dict[str, Any]:
    """Settings under which the whole pipeline takes seconds."""
    return {
        "seed": 3,
        "data": {"split": "leave-last-out"},
        "surrogate": {"dim": 8, "layers": 1, "max_epochs": 4, "batch_size": 16},
        "influence": {},
        "llm": {"model": str(llm), "lora": {"r": 2}, "prompt": {"max_items": 3}},
        "effort": {"pool": 12, "shard_size": 4},
        "select": {"budget": 6, "strata": 4},
        "finetune": {"epochs": 1, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 0.01},
        "evaluate": {
            "loss_users": 10,
            "ranking_users": 4,
            "max_new_tokens": 6,
            "beams": 2,
            "resamples": 200,
            "ks": [5],
        },
    }


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have torch say that there are so many GPUs; nothing can be put on them."""
    import torch

    from dealrec import devices

    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)

    def pretend(count: int, *, bfloat16: bool = True) -> None:
        monkeypatch.setattr(devices, "version", lambda _name: torch.__version__.removesuffix("+cpu"))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_args, **_options: bfloat16)
        monkeypatch.setattr(torch.cuda, "set_device", lambda _device: None)

    return pretend
