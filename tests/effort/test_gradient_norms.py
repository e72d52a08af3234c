"""Gradient norms of tiny language models against one backward pass a sample."""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from dealrec.effort import gradient_norms
from dealrec.sequences import Encoded, collate, plan_batches

VOCABULARY = 31
PAD = 0


def llama() -> Any:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        attention_dropout=0.2,
        attention_bias=True,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config)


def gpt2() -> Any:
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=32))


def adapted(base: Any, *, targets: Sequence[str], fresh: bool = False) -> nn.Module:
    config = LoraConfig(r=2, lora_alpha=4, lora_dropout=0.3, target_modules=list(targets), task_type="CAUSAL_LM")
    model: nn.Module = get_peft_model(base, config)
    if not fresh:
        for name, value in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(value, std=0.3)
    return model


@pytest.fixture(scope="module")
def lora_llama() -> nn.Module:
    torch.manual_seed(0)
    return adapted(llama(), targets=["q_proj", "v_proj", "down_proj"])


def encoded(seed: int, length: int, *, labelled: int) -> Encoded:
    """A random prompt and a completion of `labelled` tokens."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, VOCABULARY, (length,), generator=generator).tolist()
    return Encoded(tokens, [-100] * (length - labelled) + tokens[length - labelled :])


@st.composite
def sample_lists(draw: st.DrawFn) -> list[Encoded]:
    lengths = draw(st.lists(st.integers(2, 14), min_size=1, max_size=5))
    return [encoded(seed, n, labelled=draw(st.integers(1, n - 1))) for seed, n in enumerate(lengths)]


SAMPLES = [encoded(i, n, labelled=k) for i, (n, k) in enumerate([(9, 3), (4, 1), (12, 11), (2, 1), (6, 2)])]


def slow_norms(model: nn.Module, samples: Sequence[Encoded], *, parameters: Sequence[str] | None = None) -> Tensor:
    """One unpadded sample, the model's own loss and a plain backward pass at a time."""
    modes = {module: module.training for module in model.modules()}
    required = {name: value.requires_grad for name, value in model.named_parameters()}
    model.eval()
    chosen = []
    for name, value in model.named_parameters():
        if parameters is not None:
            value.requires_grad_(any(fnmatch.fnmatch(name, glob) for glob in parameters))
        if value.requires_grad:
            chosen.append(value)
    norms = []
    for sample in samples:
        model.zero_grad()
        ids = torch.tensor([sample.input_ids])
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=torch.tensor([sample.labels])).loss.backward()
        norms.append(
            torch.stack([value.grad.square().sum() for value in chosen if value.grad is not None]).sum().sqrt()
        )
    model.zero_grad()
    for name, value in model.named_parameters():
        value.requires_grad_(required[name])
    for module, training in modes.items():
        module.training = training
    return torch.stack(norms)


def assert_same_norms(got: Tensor, expected: Tensor) -> None:
    assert float(expected.max()) > 0
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


def one_batch(samples: Sequence[Encoded]) -> list[dict[str, Tensor]]:
    return [collate(samples, pad_id=PAD)]


@settings(deadline=None, max_examples=25, derandomize=True)
@given(samples=sample_lists())
def test_norms_match_a_loop_of_single_backward_passes(lora_llama: nn.Module, samples: list[Encoded]) -> None:
    assert_same_norms(gradient_norms(lora_llama, one_batch(samples)), slow_norms(lora_llama, samples))


def test_norms_match_the_loop_on_a_fresh_adapter() -> None:
    """lora_B is zero, so lora_A has no gradient."""
    torch.manual_seed(0)
    model = adapted(llama(), targets=["q_proj", "v_proj"], fresh=True)
    got = gradient_norms(model, one_batch(SAMPLES))
    assert_same_norms(got, slow_norms(model, SAMPLES))
    assert_same_norms(got, slow_norms(model, SAMPLES, parameters=["*lora_B*"]))


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("targets", [["c_attn"], ["c_attn", "c_fc"]])
def test_norms_match_the_loop_on_an_adapted_gpt2(targets: list[str]) -> None:
    torch.manual_seed(1)
    model = adapted(gpt2(), targets=targets)
    assert_same_norms(gradient_norms(model, one_batch(SAMPLES)), slow_norms(model, SAMPLES))


@pytest.mark.parametrize(
    "globs",
    [
        ["*q_proj.base_layer.weight"],
        ["*q_proj.base_layer.bias"],
        ["*v_proj.base_layer.*"],
        ["*down_proj.base_layer.weight", "*k_proj.weight"],
        ["*layers.1*up_proj.weight", "*lora_B*"],
        ["*layers.0.*proj*"],
    ],
)
def test_chosen_parameters_match_the_loop_though_frozen(lora_llama: nn.Module, globs: list[str]) -> None:
    frozen = [value.requires_grad for value in lora_llama.parameters()]
    got = gradient_norms(lora_llama, one_batch(SAMPLES), parameters=globs)
    assert_same_norms(got, slow_norms(lora_llama, SAMPLES, parameters=globs))
    assert [value.requires_grad for value in lora_llama.parameters()] == frozen


def test_square_weights_match_the_loop_on_samples_short_enough_for_gram_matrices(lora_llama: nn.Module) -> None:
    short, globs = [encoded(i, n, labelled=n - 1) for i, n in enumerate([5, 3, 4])], ["*q_proj.base_layer.*"]
    got = gradient_norms(lora_llama, one_batch(short), parameters=globs)
    assert_same_norms(got, slow_norms(lora_llama, short, parameters=globs))


def test_a_model_that_is_frozen_throughout_can_be_scored() -> None:
    torch.manual_seed(0)
    model = llama().requires_grad_(False)
    globs = ["*layers.0.self_attn.q_proj.weight", "*layers.1.mlp.gate_proj.weight"]
    got = gradient_norms(model, one_batch(SAMPLES), parameters=globs)
    assert_same_norms(got, slow_norms(model, SAMPLES, parameters=globs))


@pytest.mark.parametrize("sizes", [[5], [1, 1, 1, 1, 1], [2, 3], [4, 1]])
def test_norms_do_not_depend_on_the_batching(lora_llama: nn.Module, sizes: list[int]) -> None:
    ends = torch.tensor(sizes).cumsum(0).tolist()
    parts = [SAMPLES[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    got = gradient_norms(lora_llama, [collate(part, pad_id=PAD) for part in parts])
    assert_same_norms(got, gradient_norms(lora_llama, one_batch(SAMPLES)))


def test_norms_follow_the_order_of_the_samples(lora_llama: nn.Module) -> None:
    straight = gradient_norms(lora_llama, one_batch(SAMPLES))
    plan = plan_batches([len(sample.input_ids) for sample in SAMPLES], batch_tokens=20)
    planned = gradient_norms(lora_llama, [collate([SAMPLES[i] for i in index], pad_id=PAD) for index in plan])
    assert_same_norms(planned, straight[[i for index in plan for i in index]])


def test_more_padding_changes_nothing(lora_llama: nn.Module) -> None:
    tight = collate(SAMPLES, pad_id=PAD)
    fill: Mapping[str, int] = {"input_ids": 7, "attention_mask": 0, "labels": -100}
    wide = {name: nn.functional.pad(value, (0, 6), value=fill[name]) for name, value in tight.items()}
    assert_same_norms(gradient_norms(lora_llama, [wide]), gradient_norms(lora_llama, [tight]))
