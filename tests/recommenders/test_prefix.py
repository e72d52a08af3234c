"""A prefix that is read once changes neither losses nor what is written, and is left alone where it could."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from dealrec.recommenders.bigrec import generate
from dealrec.recommenders.bigrec.generation import title_of
from dealrec.recommenders.bigrec.model import attach_lora, load_tokenizer
from dealrec.recommenders.bigrec.prefix import common_length, read_prefix
from dealrec.sequences import Encoded, collate, sequence_losses
from dealrec.stages.recommenders.training import mean_token_losses

SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 258}
WIDE: dict[str, Any] = {**SIZES, "intermediate_size": 32}
SHARED = list(range(20, 32))


def gpt2() -> Any:
    return GPT2LMHeadModel(GPT2Config(vocab_size=258, n_embd=16, n_layer=2, n_head=2, n_positions=64))


FULL: dict[str, Callable[[], Any]] = {
    "gpt2": gpt2,
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**WIDE, num_key_value_heads=1)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**WIDE, num_key_value_heads=1)),
    "gpt-neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**WIDE)),
    "opt": lambda: OPTForCausalLM(OPTConfig(**SIZES, ffn_dim=32, word_embed_proj_dim=16, max_position_embeddings=64)),
}
OTHERS: dict[str, Callable[[], Any]] = {
    "sliding window": lambda: MistralForCausalLM(MistralConfig(**WIDE, num_key_value_heads=1, sliding_window=6)),
    "some layers with a window": lambda: Gemma2ForCausalLM(
        Gemma2Config(**WIDE, num_key_value_heads=1, head_dim=8, sliding_window=6)
    ),
    "state": lambda: MambaForCausalLM(
        MambaConfig(vocab_size=258, hidden_size=16, num_hidden_layers=2, state_size=4, time_step_rank=2)
    ),
}


def made(new: Callable[[], Any]) -> Any:
    """Random weights large enough to make what is written differ, float64."""
    torch.manual_seed(0)
    model = new().double().eval()
    with torch.no_grad():
        for value in model.parameters():
            if value.dim() > 1:
                value.normal_(std=0.3)
    return model


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    ends = [torch.randint(5, 258, (length,), generator=generator).tolist() for length in (1, 4, 11)]
    return [[*SHARED, 40 + place, *end] for place, end in enumerate(ends)]


def samples() -> list[Encoded]:
    targets = [[7, 8, 1], [9, 1], [50, 51, 52, 53, 1]]
    pairs = zip(prompts(), targets, strict=True)
    return [Encoded(prompt + target, [-100] * len(prompt) + target) for prompt, target in pairs]


class Scored:
    """What `mean_token_losses` needs of a recommender."""

    pad_id = 0

    def __init__(self, model: Any) -> None:
        self.model = model


def losses(model: Any, *, batch_tokens: int = 60) -> torch.Tensor:
    return mean_token_losses(Scored(model), samples(), batch_tokens=batch_tokens)  # type: ignore[arg-type]


def whole(model: Any) -> torch.Tensor:
    """The slow twin: one sample at a time, from its first token."""
    with torch.no_grad():
        return torch.cat([sequence_losses(model, collate([sample], pad_id=0)) for sample in samples()])


@pytest.mark.parametrize("family", FULL)
def test_losses_after_a_prefix_are_those_of_whole_prompts(family: str) -> None:
    model = made(FULL[family])
    prefix = read_prefix(model, prompts())
    assert prefix is not None
    assert prefix.tokens == SHARED
    batch = collate(samples(), pad_id=0)
    with torch.no_grad():
        found = [sequence_losses(model, batch, past=prefix.repeat(3)) for _ in range(2)]
    assert torch.equal(*found)  # a batch leaves the prefix as it was
    # Root mean square norms are taken in single precision whatever the model's.
    exact = 1e-9 if family in ("gpt2", "gpt-neox", "opt") else 1e-6
    torch.testing.assert_close(found[0], whole(model), rtol=exact, atol=exact)
    torch.testing.assert_close(losses(model), whole(model).float())


def test_with_an_adapter_the_prefix_is_read_by_the_adapter() -> None:
    model = attach_lora(made(FULL["gpt-neox"]), r=2, alpha=4, dropout=0.5, target_modules=["query_key_value"], seed=0)
    model = model.eval().double()
    plain = losses(model)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.5)
    prefix = read_prefix(model, prompts())
    assert prefix is not None
    with torch.no_grad():
        found = sequence_losses(model, collate(samples(), pad_id=0), past=prefix.repeat(3))
    torch.testing.assert_close(found, whole(model), rtol=1e-9, atol=1e-9)
    assert (losses(model) - plain).abs().min() > 1e-3  # read anew once the parameters have changed


@pytest.mark.parametrize("family", OTHERS)
def test_other_models_read_the_prompts_whole(family: str, tiny_llm: Path) -> None:
    model = made(OTHERS[family]).float()  # eager attention fails on padding beyond a window in double precision
    assert read_prefix(model, prompts()) is None
    torch.testing.assert_close(losses(model), whole(model).float())
    assert written(model, tiny_llm, beams=2) == plainly_written(model, tiny_llm, beams=2)


def test_an_encoder_decoder_has_no_prefix() -> None:
    model = T5ForConditionalGeneration(T5Config(vocab_size=258, d_model=8, d_ff=8, d_kv=4, num_layers=1, num_heads=2))
    assert read_prefix(model, prompts()) is None


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", FULL)
def test_what_is_written_after_a_prefix_is_what_is_written_without(family: str, beams: int, tiny_llm: Path) -> None:
    model = made(FULL[family])
    titles = plainly_written(model, tiny_llm, beams=beams)
    assert len(set(titles)) > 1
    assert written(model, tiny_llm, beams=beams, prefix=read_prefix(model, prompts())) == titles
    assert written(model, tiny_llm, beams=beams) == titles


def written(model: Any, folder: Path, *, beams: int, prefix: Any = None) -> list[str]:
    return generate(model, load_tokenizer(str(folder)), prompts(), beams=beams, max_new_tokens=8, prefix=prefix)


def plainly_written(model: Any, folder: Path, *, beams: int) -> list[str]:
    """By transformers alone, one prompt at a time."""
    tokenizer, titles = load_tokenizer(str(folder)), []
    for row in prompts():
        ids = torch.tensor([row])
        settings: dict[str, Any] = {"eos_token_id": 1, "pad_token_id": 0, "max_new_tokens": 8, "do_sample": False}
        made = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), num_beams=beams, early_stopping=beams > 1, **settings
        )
        titles.append(title_of(tokenizer.decode(made[0][len(row) :], skip_special_tokens=True)))
    return titles


def test_a_prefix_leaves_every_prompt_a_token_and_is_not_worth_it_when_short() -> None:
    model = made(gpt2)
    same = read_prefix(model, [SHARED, SHARED])
    assert same is not None
    assert same.tokens == SHARED[:-1]
    assert common_length([SHARED, [*SHARED[:5], 3, 4]]) == 5
    assert read_prefix(model, [SHARED[:5], SHARED[:5]]) is None
    assert read_prefix(model, []) is None


def test_a_label_within_the_prefix_is_refused() -> None:
    model = made(gpt2)
    prefix = read_prefix(model, prompts())
    assert prefix is not None
    batch = collate([Encoded(SHARED, [-100, *SHARED[1:]])], pad_id=0)
    with pytest.raises(ValueError, match="within the 12 tokens"):
        sequence_losses(model, batch, past=prefix.repeat(1))
