"""What gradient_norms leaves behind, what it refuses, and layers that are used in unusual ways."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from dealrec.effort import Encoded, collate, gradient_norms
from dealrec.effort.norms import _squared_norms
from dealrec.errors import ModelError, NonFinite

VOCABULARY = 13
WIDTH = 6


def base_llama() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        attention_dropout=0.5,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def adapted_llama() -> nn.Module:
    config = LoraConfig(r=2, lora_dropout=0.5, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model: nn.Module = get_peft_model(base_llama(), config)
    return model


class TinyLM(nn.Module):
    """Embedding, a body given by the test, and a head."""

    def __init__(self, body: Callable[["TinyLM", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.one = nn.Linear(WIDTH, WIDTH)
        self.two = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.body = body

    def forward(self, input_ids: Tensor, **_unused: object) -> SimpleNamespace:
        return SimpleNamespace(logits=self.head(self.body(self, self.embedding(input_ids))))


def slow_norms(model: TinyLM, samples: Sequence[Encoded], names: Sequence[str]) -> Tensor:
    chosen = [dict(model.named_parameters())[name] for name in names]
    norms = []
    for sample in samples:
        ids = torch.tensor([sample.input_ids])
        logits = model(ids).logits[0, :-1]
        loss = nn.functional.cross_entropy(logits, torch.tensor(sample.labels[1:]))
        gradients = torch.autograd.grad(loss, chosen)
        norms.append(torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt())
    return torch.stack(norms)


SAMPLES = [
    Encoded([3, 1, 4, 1, 5], [-100, -100, -100, 1, 5]),
    Encoded([9, 2, 6], [-100, 2, 6]),
    Encoded([5, 3, 5, 8], [-100, -100, -100, 8]),
]
BATCHES = [collate(SAMPLES, pad_id=0)]
ONE = ["one.weight", "one.bias"]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(lambda m, x: m.one(m.one(x).tanh()), id="called twice"),
        pytest.param(lambda m, x: m.one(x) + m.one(x.flip(-1)).tanh(), id="called twice side by side"),
        pytest.param(lambda m, x: nn.functional.relu_(m.one(x)), id="changed in place"),
        pytest.param(lambda m, x: m.one(x).add_(m.two(x)).tanh(), id="added to in place"),
        pytest.param(lambda m, x: m.one(x.unflatten(-1, (1, WIDTH))).squeeze(2).tanh(), id="four dimensions"),
        pytest.param(lambda m, x: x + m.one(x.cumsum(1)[:, -1:]).tanh() * x, id="called on one token"),
    ],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_unusual_calls_match_the_loop(body: Callable[[TinyLM, Tensor], Tensor], frozen: bool) -> None:
    model = TinyLM(body)
    unpadded = [collate([sample], pad_id=0) for sample in SAMPLES]  # a body may look at padding
    expected = slow_norms(model, SAMPLES, ONE)
    got = gradient_norms(model.requires_grad_(not frozen), unpadded, parameters=["one.*"])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-7)


def test_calls_in_one_batch_match_the_loop() -> None:
    model = TinyLM(lambda m, x: m.one(m.one(x).tanh()))
    got = gradient_norms(model, BATCHES, parameters=["one.*", "head.weight"])
    torch.testing.assert_close(got, slow_norms(model, SAMPLES, [*ONE, "head.weight"]), rtol=1e-4, atol=1e-7)


def test_a_layer_on_two_dimensional_input_matches_the_loop() -> None:
    model = TinyLM(lambda m, x: x + m.one(x[:, 0]).tanh().unsqueeze(1))  # a summary of each sample
    got = gradient_norms(model, BATCHES, parameters=["one.*"])
    torch.testing.assert_close(got, slow_norms(model, SAMPLES, ONE), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(lambda m, x: m.one(x.flatten(0, 1)).view_as(x), id="batch flattened into tokens"),
        pytest.param(lambda m, x: x + m.one(x[:1]), id="shared by the batch"),
    ],
)
def test_a_layer_that_does_not_see_samples_apart_is_refused(body: Callable[[TinyLM, Tensor], Tensor]) -> None:
    with pytest.raises(ModelError, match="one got an input of shape"):
        gradient_norms(TinyLM(body), BATCHES, parameters=["one.weight"])


def test_a_layer_that_is_never_called_is_refused() -> None:
    with pytest.raises(ModelError, match="calls none of the layers"):
        gradient_norms(TinyLM(lambda m, x: m.one(x)), BATCHES, parameters=["two.weight"])


@settings(deadline=None, max_examples=80, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    weight=st.booleans(),
    bias=st.booleans(),
)
def test_squared_norms_match_the_gradient_by_definition(
    shape: tuple[int, int, int, int], weight: bool, bias: bool
) -> None:
    """Shapes fall on both sides of the choice between the Gram matrices and the gradient itself."""
    samples, tokens, width, height = shape
    generator = torch.Generator().manual_seed(sum(shape))
    entry = torch.randn(samples, tokens, width, generator=generator)
    gradient = torch.randn(samples, tokens, height, generator=generator)
    expected = torch.zeros(samples)
    for i in range(samples):
        expected[i] += weight * (gradient[i].T @ entry[i]).square().sum()
        expected[i] += bias * gradient[i].sum(0).square().sum()
    got = _squared_norms(entry, gradient, weight=weight, bias=bias)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_dropout_is_off_and_the_mode_is_restored() -> None:
    model = adapted_llama().train()
    first = gradient_norms(model, BATCHES)
    assert model.training
    assert torch.equal(first, gradient_norms(model, BATCHES))
    assert torch.equal(first, gradient_norms(model.eval(), BATCHES))
    assert not model.training


def test_each_module_gets_its_own_mode_back() -> None:
    model = adapted_llama().train()
    next(module for name, module in model.named_modules() if name.endswith("mlp")).eval()
    before = [module.training for module in model.modules()]
    gradient_norms(model, BATCHES)
    assert [module.training for module in model.modules()] == before


def test_the_mode_and_the_hooks_are_restored_after_an_error() -> None:
    model = adapted_llama().train()
    unlabelled = collate([Encoded([1, 2, 3], [-100, -100, -100])], pad_id=0)
    with pytest.raises(ValueError, match="no label token"):
        gradient_norms(model, [*BATCHES, unlabelled])
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_nothing_is_left_on_the_model() -> None:
    model = adapted_llama()
    before = [value.detach().clone() for value in model.parameters()]
    gradient_norms(model, BATCHES)
    assert all(value.grad is None for value in model.parameters())
    assert all(torch.equal(value, old) for value, old in zip(model.parameters(), before, strict=True))
    assert not any(module._forward_hooks for module in model.modules())


def test_norms_can_be_taken_where_gradients_are_off() -> None:
    model = adapted_llama()
    expected = gradient_norms(model, BATCHES)
    with torch.no_grad():
        got = gradient_norms(model, BATCHES)
    assert torch.equal(got, expected)
    assert not got.requires_grad


def test_the_first_token_is_never_a_label() -> None:
    """Nothing comes before it, so a label there alone is no label."""
    batch = collate([SAMPLES[0], Encoded([1, 2, 3], [1, -100, -100])], pad_id=0)
    with pytest.raises(ValueError, match=r"samples \[1\]"):
        gradient_norms(adapted_llama(), [batch])


def test_no_batches_is_an_error() -> None:
    with pytest.raises(ValueError, match="batches is empty"):
        gradient_norms(adapted_llama(), [])


def test_a_glob_without_a_match_is_refused() -> None:
    with pytest.raises(ModelError, match="no_such_layer"):
        gradient_norms(adapted_llama(), BATCHES, parameters=["*q_proj*", "*no_such_layer*"])


def test_no_globs_at_all_are_refused() -> None:
    with pytest.raises(ModelError):
        gradient_norms(adapted_llama(), BATCHES, parameters=[])


def test_a_model_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(ModelError, match="requires grad"):
        gradient_norms(base_llama().requires_grad_(False), BATCHES)


@pytest.mark.parametrize("glob", ["*embed_tokens.weight", "*lm_head.weight", "*norm.weight"])
def test_embeddings_tied_heads_and_norms_are_refused(glob: str) -> None:
    with pytest.raises(ModelError):
        gradient_norms(base_llama(), BATCHES, parameters=[glob])


def test_all_parameters_of_a_model_are_refused_by_the_type_of_the_first_misfit() -> None:
    with pytest.raises(ModelError, match="Embedding"):
        gradient_norms(base_llama(), BATCHES)


def test_conv1d_layers_are_refused_by_name() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=8, n_layer=1, n_head=2, n_positions=8))
    with pytest.raises(ModelError, match="Conv1D"):
        gradient_norms(model, BATCHES, parameters=["*c_attn.weight"])


def test_nan_weights_are_an_error_that_names_the_samples() -> None:
    model = adapted_llama()
    with torch.no_grad():
        next(value for name, value in model.named_parameters() if "lora_A" in name).fill_(torch.nan)
    with pytest.raises(NonFinite, match="positions 0, 1, 2"):
        gradient_norms(model, BATCHES)


def test_a_bad_sample_is_named_by_its_position_over_all_batches() -> None:
    model = adapted_llama()
    with torch.no_grad():
        model.get_input_embeddings().weight[12].fill_(torch.nan)  # type: ignore[operator]
    bad = collate([SAMPLES[1], Encoded([1, 12, 4], [-100, -100, 4])], pad_id=0)
    with pytest.raises(NonFinite, match="positions"):
        gradient_norms(model, [*BATCHES, bad])
