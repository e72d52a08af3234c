"""Made-up viewers, films and a tiny random LLM, so that the examples run in seconds, without a network.

Nothing can be concluded from them: they stand where your files and your LLM will.

python small_data.py FOLDER      writes interactions.parquet, items.parquet and the folder llm
"""

import sys
from pathlib import Path

import numpy as np
import polars as pl

SERIES = ("Harbour", "Comet", "Orchard", "Silver Line", "Night Shift")
EPISODES = 8


def interactions(*, users: int = 60, seed: int = 0) -> pl.DataFrame:
    """user_id, item_id, timestamp: everybody watches series in order, and now and then leaves one for the next."""
    draw = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        film, time = int(draw.integers(len(SERIES) * EPISODES)), int(draw.integers(1_000))
        for step in range(int(draw.integers(5, 12))):
            rows.append((f"viewer-{user}", film % (len(SERIES) * EPISODES), time + step))
            film += 1 if draw.random() < 0.8 else 3
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def items() -> pl.DataFrame:
    """item_id, title."""
    titles = [f"{series}, part {episode + 1}" for series in SERIES for episode in range(EPISODES)]
    return pl.DataFrame({"item_id": range(len(titles)), "title": titles})


def llm(folder: Path) -> Path:
    """A random Llama of two layers that reads bytes, in Hugging Face format."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = ["<pad>", "<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"pad_token": "<pad>", "eos_token": "<end>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(alphabet), **sizes, pad_token_id=0, eos_token_id=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def main() -> None:
    """Write all of it."""
    if len(sys.argv) != 2:
        sys.exit("usage: python small_data.py FOLDER")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    interactions().write_parquet(folder / "interactions.parquet")
    items().write_parquet(folder / "items.parquet")
    llm(folder / "llm")


if __name__ == "__main__":
    main()
