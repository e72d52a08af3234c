"""Gradient norms of all kinds of layers against a loop of batches of one, in float64."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from dealrec.effort import gradient_norms
from dealrec.errors import ModelError
from dealrec.sequences import Encoded, collate, sequence_losses

VOCABULARY = 23
PAD = 0
DECODER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 12,
    "intermediate_size": 10,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "tie_word_embeddings": True,
    "initializer_range": 0.4,
    "pad_token_id": PAD,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def t5(**settings: Any) -> Any:
    config = T5Config(  # type: ignore[call-arg]
        vocab_size=VOCABULARY,
        d_model=12,
        d_kv=4,
        d_ff=10,
        num_layers=2,
        num_heads=3,
        relative_attention_num_buckets=6,
        relative_attention_max_distance=8,
        decoder_start_token_id=PAD,
        **settings,
    )
    return T5ForConditionalGeneration(config)


def bart() -> Any:
    config = BartConfig(
        vocab_size=VOCABULARY,
        d_model=12,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=10,
        decoder_ffn_dim=10,
        encoder_attention_heads=3,
        decoder_attention_heads=3,
        max_position_embeddings=20,
        scale_embedding=True,
        init_std=0.4,
        pad_token_id=PAD,
    )
    return BartForConditionalGeneration(config)


def gpt2() -> Any:
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=12, n_layer=2, n_head=3, n_positions=20, initializer_range=0.4, bos_token_id=1
    )
    return GPT2LMHeadModel(config)


def opt() -> Any:
    config = OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=12,
        ffn_dim=10,
        num_hidden_layers=1,
        num_attention_heads=3,
        max_position_embeddings=20,
        word_embed_proj_dim=12,
        init_std=0.4,
    )
    return OPTForCausalLM(config)


FAMILIES: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**DECODER)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**DECODER)),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**DECODER)),
    "gpt2": gpt2,
    "t5": t5,
    "t5 v1.1": lambda: t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "bart": bart,
}


def family(name: str) -> Any:
    """A random model in float64, its norms' weights random too, for which 1 would hide errors."""
    torch.manual_seed(0)
    model = FAMILIES[name]().double().eval()
    for key, value in model.named_parameters():
        if value.dim() == 1:
            nn.init.normal_(value, mean=0.3 if "norm" in key else 0.0, std=0.5)
    return model


def samples_for(model: Any, *, count: int = 4) -> list[Encoded]:
    """Random samples of unlike lengths; tokens repeat, and the padding token occurs among them."""
    generator = torch.Generator().manual_seed(1)

    def tokens(length: int) -> list[int]:
        return [int(i) for i in torch.randint(0, VOCABULARY, (length,), generator=generator)]

    samples = []
    for i in range(count):
        ids = [*tokens(3 + 2 * i), PAD, 5, 5, 7]
        if model.config.is_encoder_decoder:
            samples.append(Encoded(ids, [*tokens(5 - i), 5, 7]))
        else:
            samples.append(Encoded(ids, [-100] * (len(ids) - 3) + ids[-3:]))
    return samples


def looped_norms(model: nn.Module, samples: Sequence[Encoded], globs: Sequence[str]) -> Tensor:
    """A full backward pass a sample."""
    before = {name: value.requires_grad for name, value in model.named_parameters()}
    everything = dict(model.named_parameters(remove_duplicate=False))
    chosen = {id(v): v for name, v in everything.items() if any(fnmatch.fnmatch(name, glob) for glob in globs)}
    for value in chosen.values():
        value.requires_grad_(True)
    norms = []
    for sample in samples:
        losses = sequence_losses(model, collate([sample], pad_id=PAD))
        gradients = torch.autograd.grad(losses[0], list(chosen.values()), allow_unused=True)
        norms.append(sum((g.square().sum() for g in gradients if g is not None), torch.zeros(())).sqrt())
    for name, value in model.named_parameters():
        value.requires_grad_(before[name])
    return torch.stack(norms)


def assert_norms_match(model: nn.Module, samples: Sequence[Encoded], globs: Sequence[str]) -> None:
    expected = looped_norms(model, samples, globs)
    assert float(expected.min()) > 0
    got = gradient_norms(model, [collate(samples, pad_id=PAD)], parameters=globs)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_norms_over_all_parameters_match_the_loop(name: str) -> None:
    model = family(name)
    assert_norms_match(model, samples_for(model), ["*"])


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.slow
def test_norms_over_each_parameter_match_the_loop(name: str) -> None:
    """Errors of single layers cannot hide behind large gradients of others."""
    model = family(name)
    samples = samples_for(model, count=3)
    for parameter, _ in model.named_parameters():
        if float(looped_norms(model, samples, [parameter]).min()) > 1e-9:  # a key's bias has no effect
            assert_norms_match(model, samples, [parameter])


@pytest.mark.parametrize("name", FAMILIES)
def test_norms_do_not_depend_on_the_batching_or_on_padding(name: str) -> None:
    model = family(name)
    samples = samples_for(model)
    whole = gradient_norms(model, [collate(samples, pad_id=PAD)])
    parts = gradient_norms(model, [collate([sample], pad_id=PAD) for sample in samples])
    fill = {"input_ids": PAD, "attention_mask": 0, "labels": -100}
    padded = {k: nn.functional.pad(v, (0, 4), value=fill[k]) for k, v in collate(samples, pad_id=PAD).items()}
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient_norms(model, [padded]), whole, rtol=1e-6, atol=0)


ADAPTERS: dict[str, dict[str, Any]] = {
    "q and v": {"llama": ["q_proj", "v_proj"], "t5": ["q", "v"], "gpt2": ["c_attn"], "bart": ["q_proj", "v_proj"]},
    "all linear": dict.fromkeys(("llama", "qwen3", "gpt2", "t5", "t5 v1.1"), "all-linear"),
    "embeddings": {
        "llama": ["embed_tokens"],
        "gemma3": ["embed_tokens", "v_proj"],
        "gpt2": ["wte", "wpe"],
        "t5": ["shared", "wi"],
    },
}


def adapted(name: str, targets: Any, **settings: Any) -> Any:
    model = get_peft_model(family(name), LoraConfig(r=2, target_modules=targets, init_lora_weights=False, **settings))
    return model.double().eval()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in ADAPTERS.items() for name in names])
def test_norms_over_adapters_match_the_loop(kind: str, name: str) -> None:
    model = adapted(name, ADAPTERS[kind][name])
    samples = samples_for(model)
    expected = looped_norms(model, samples, ["*lora_*"])
    got = gradient_norms(model, [collate(samples, pad_id=PAD)])
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("globs", [["*lora_embedding_A*"], ["*lora_embedding_B*"], ["*base_layer.weight"], ["*"]])
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_norms_over_parts_of_an_adapted_embedding_match_the_loop(name: str, globs: list[str]) -> None:
    model = adapted(name, ["embed_tokens", "q_proj"])
    assert_norms_match(model, samples_for(model), globs)


def test_norms_over_the_adapted_matrices_themselves_match_the_loop() -> None:
    model = adapted("llama", ["q_proj", "v_proj"])
    assert_norms_match(model, samples_for(model), ["*.q_proj.base_layer.weight", "*.v_proj.base_layer.weight"])


def test_norms_over_modules_that_are_saved_beside_an_adapter_match_the_loop() -> None:
    model = adapted("t5 v1.1", ["q"], modules_to_save=["lm_head", "final_layer_norm"])
    samples = samples_for(model)
    expected = looped_norms(model, samples, ["*lora_*", "*modules_to_save*"])
    got = gradient_norms(model, [collate(samples, pad_id=PAD)])
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-12)


def test_a_switched_off_adapter_has_no_gradient() -> None:
    model = adapted("llama", ["embed_tokens", "q_proj"])
    batch = collate(samples_for(model), pad_id=PAD)
    with model.disable_adapter():
        assert gradient_norms(model, [batch], parameters=["*lora_*", "*model.norm.weight"]).min() > 0
        got = gradient_norms(model, [batch], parameters=["*lora_*", "*model.norm.weight"])
        torch.testing.assert_close(got, gradient_norms(model, [batch], parameters=["*model.norm.weight"]))


def test_layers_that_see_all_tokens_of_a_batch_in_one_row_are_refused_and_the_others_are_not() -> None:
    """OPT flattens the batch before its feed-forward layers."""
    torch.manual_seed(0)
    model = opt().double().eval()
    assert_norms_match(model, samples_for(model), ["*embed_*", "*self_attn*"])
    with pytest.raises(ModelError, match=r"layers.0.fc1 got an input of shape \[52, 12\] for 4 samples \(Linear\)"):
        gradient_norms(model, [collate(samples_for(model), pad_id=PAD)])


@pytest.mark.parametrize("targets", [["q_proj"], ["embed_tokens"]])
def test_weight_decomposed_adapters_match_the_loop_or_are_refused(targets: list[str]) -> None:
    model = adapted("llama", targets, use_dora=True)
    samples = samples_for(model)
    if targets == ["embed_tokens"]:
        with pytest.raises(ModelError, match=r"lora_embedding_A.default.* variant of LoRA"):
            gradient_norms(model, [collate(samples, pad_id=PAD)], parameters=["*lora_embedding*"])
    else:
        assert_norms_match(model, samples, ["*lora_*"])


def test_an_adapted_relative_position_bias_is_refused_by_name() -> None:
    model = adapted("t5", ["relative_attention_bias", "q"])
    batch = collate(samples_for(model), pad_id=PAD)
    with pytest.raises(ModelError, match=r"lora_embedding_A.default.* bias that the samples share"):
        gradient_norms(model, [batch])
    assert gradient_norms(model, [batch], parameters=["*q.lora_*"]).min() > 0


def test_norms_over_the_last_layer_match_the_loop_though_adapters_lie_below() -> None:
    model = adapted("qwen3", "all-linear")
    assert_norms_match(model, samples_for(model), ["*layers.1.*lora_*"])


def test_models_in_bfloat16_are_scored_in_float32() -> None:
    model = family("llama")
    expected = gradient_norms(model, [collate(samples_for(model), pad_id=PAD)])
    got = gradient_norms(model.bfloat16(), [collate(samples_for(model), pad_id=PAD)])
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, rtol=0.1, atol=0)
