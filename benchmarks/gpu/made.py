"""What is measured on, made here: nothing is fetched."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dealrec.sequences import IGNORED, Encoded

# tiny: for agreement. real: the shape of SmolLM2-135M, for speed.
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "vocab_size": 258,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "real": {
        "vocab_size": 49_152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
}


SCORES = {"dealrec": {"method": "dealrec"}, "drop": {"method": "loss-drop"}}  # arms, for their signals


def llm(folder: Path, shape: str) -> Path:
    """A random Llama with a tokenizer over bytes, in Hugging Face format. shape: a key of SHAPES."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<|pad|>", "<|end|>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names: dict[str, Any] = {"pad_token": "<|pad|>", "eos_token": "<|end|>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    torch.manual_seed(0)
    ids: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "tie_word_embeddings": True}
    ids["initializer_range"] = 0.2 if shape == "tiny" else 0.02  # of few weights small ones would make all losses alike
    LlamaForCausalLM(LlamaConfig(**SHAPES[shape], **ids)).save_pretrained(folder)
    return folder


def interactions(folder: Path, *, users: int, items: int, longest: int = 12) -> None:
    """Each user walks through the items from a place of their own, now and then jumping: two Parquet files."""
    draw = np.random.default_rng(0)
    lengths = draw.integers(4, longest, users)
    owner = np.repeat(np.arange(users), lengths)
    steps = np.where(draw.random(len(owner)) < 0.2, draw.integers(1, items, len(owner)), 1)
    table = pl.DataFrame({"user_id": owner, "item_id": np.cumsum(steps) % items, "timestamp": np.arange(len(owner))})
    table.write_parquet(folder / "interactions.parquet")
    titles = [f"Film {i}" for i in range(items)]
    pl.DataFrame({"item_id": range(items), "title": titles}).write_parquet(folder / "items.parquet")


def config(folder: Path, model: Path, **sections: dict[str, Any]) -> Path:
    """Settings of a run on the interactions of a folder, without dropout, whose draws differ from device to device.

    sections: settings to add.
    """
    content: dict[str, Any] = {
        "seed": 3,
        "data": {"split": "leave-last-out"},
        "surrogate": {"dim": 8, "layers": 1, "dropout": 0.0, "max_epochs": 3, "batch_size": 16},
        "llm": {"model": str(model), "dtype": "float32", "lora": {"dropout": 0.0}, "prompt": {"max_items": 3}},
        "pool": {"size": 24},
        "effort": {"shard_size": 12},
        # What is fine-tuned on is drawn, lest scores that differ by rounding select other samples.
        "select": {"method": "random", "budget": 8, "random_arms": 0, "arms": SCORES},
        "finetune": {"epochs": 1, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 0.005},
        "evaluate": {"loss_users": 16, "ranking_users": 4, "max_new_tokens": 6, "beams": 2, "ks": [5]},
    }
    for name, section in sections.items():
        content[name] = {**content.get(name, {}), **section}
    folder.mkdir(exist_ok=True)
    for name in ("interactions", "items"):
        (folder / f"{name}.parquet").write_bytes((folder.parent / f"{name}.parquet").read_bytes())
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def samples(count: int, *, vocabulary: int) -> list[Encoded]:
    """Random tokens, as many as the demo's prompts have: about 150, of which 4 to 16 are labels; the first 40 alike."""
    generator = torch.Generator().manual_seed(1)
    lengths = (torch.randn(count, generator=generator) * 25 + 150).long().clamp(60, 250).tolist()
    labels = torch.randint(4, 17, (count,), generator=generator).tolist()
    start = torch.randint(2, vocabulary, (40,), generator=generator).tolist()
    rows = []
    for length, labelled in zip(lengths, labels, strict=True):
        tokens = [*start, *torch.randint(2, vocabulary, (length - 40,), generator=generator).tolist()]
        rows.append(Encoded(tokens, [IGNORED] * (length - labelled) + tokens[length - labelled :]))
    return rows
