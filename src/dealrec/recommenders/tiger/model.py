"""The encoder-decoder that reads a history of semantic ids and writes the next one."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import T5Config, T5ForConditionalGeneration

from dealrec.recommenders.tiger.semantic_ids import EOS, PAD, SemanticIds
from dealrec.sequences.batches import Encoded


def new_model(
    vocab_size: int,
    *,
    d_model: int = 128,
    heads: int = 6,
    d_kv: int = 64,
    d_ff: int = 1024,
    layers: int = 4,
    dropout: float = 0.1,
    seed: int = 0,
) -> Any:
    """A T5 (Raffel et al., 2020) with weights drawn from `seed`; the default sizes are TIGER's.

    layers: of the encoder, and as many of the decoder. The decoder starts from the padding token.
    """
    config = T5Config(  # type: ignore[call-arg]  # what all models share is not in its signature
        vocab_size=vocab_size,
        d_model=d_model,
        num_heads=heads,
        d_kv=d_kv,
        d_ff=d_ff,
        num_layers=layers,
        dropout_rate=dropout,
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=PAD,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return T5ForConditionalGeneration(config).eval()


def encode(ids: SemanticIds, history: Sequence[int], target: int, *, max_items: int = 20) -> Encoded:
    """A sample as tokens: the last `max_items` of the history, oldest first, and the end; labels spell the target.

    history, target: rows of the catalogue.
    """
    tokens = ids.tokens[list(history[-max_items:])].flatten().tolist()
    return Encoded([*tokens, EOS], ids.tokens[target].tolist())
