"""Tiny models and samples to fine-tune them on."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from dealrec.sequences import Encoded

VOCABULARY = 17
Case = tuple[Callable[[], Any], list[Encoded]]  # how to make a model, and samples for it


def llama() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def adapted_llama(*, dropout: float = 0.0) -> Any:
    return get_peft_model(llama(), LoraConfig(r=2, lora_dropout=dropout, target_modules=["q_proj", "v_proj"]))


def t5(*, dropout: float = 0.0) -> Any:
    torch.manual_seed(0)
    config = T5Config(vocab_size=VOCABULARY, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, dropout_rate=dropout)
    config.decoder_start_token_id = 0
    return T5ForConditionalGeneration(config)


def made_samples(count: int, *, seed: int = 0) -> list[Encoded]:
    """Samples of unequal length, of which unequally many tokens are labels."""
    draw = torch.Generator().manual_seed(seed)
    samples = []
    for i in range(count):
        ids = torch.randint(1, VOCABULARY, (4 + i % 5,), generator=draw).tolist()
        prompt = 1 + i % 3
        samples.append(Encoded(ids, [-100] * prompt + ids[prompt:]))
    return samples


def for_encoder_decoder(samples: list[Encoded]) -> list[Encoded]:
    """The same inputs with one to three of the last tokens as labels, apart from them."""
    return [Encoded(sample.input_ids, sample.labels[-1 - i % 3 :]) for i, sample in enumerate(samples)]


@pytest.fixture
def adapted() -> Callable[[], Any]:
    return adapted_llama


@pytest.fixture
def samples() -> list[Encoded]:
    return made_samples(10)


@pytest.fixture
def validation() -> list[Encoded]:
    return made_samples(7, seed=5)


@pytest.fixture(params=["adapter", "whole model", "encoder-decoder"])
def case(request: pytest.FixtureRequest, samples: list[Encoded]) -> Case:
    return {
        "adapter": (adapted_llama, samples),
        "whole model": (llama, samples),
        "encoder-decoder": (t5, for_encoder_decoder(samples)),
    }[request.param]


@pytest.fixture(params=["adapter", "encoder-decoder"])
def case_with_dropout(request: pytest.FixtureRequest, samples: list[Encoded]) -> Case:
    return {
        "adapter": (lambda: adapted_llama(dropout=0.3), samples),
        "encoder-decoder": (lambda: t5(dropout=0.3), for_encoder_decoder(samples)),
    }[request.param]
