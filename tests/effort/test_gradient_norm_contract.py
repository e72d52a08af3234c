"""What gradient_norms leaves behind, what it refuses, and layers that are used in unusual ways."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from dealrec.effort import gradient_norms
from dealrec.errors import ModelError, NonFinite
from dealrec.sequences import Encoded, collate

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


def test_a_tied_parameter_counts_once_whichever_of_its_names_is_given() -> None:
    model = base_llama()
    names = ["*embed_tokens.weight", "*lm_head.weight"]
    both = gradient_norms(model, BATCHES, parameters=names)
    for name in names:
        assert torch.equal(gradient_norms(model, BATCHES, parameters=[name]), both)


def test_what_requires_grad_is_as_before_even_after_an_error() -> None:
    model = adapted_llama()
    before = [value.requires_grad for value in model.parameters()]
    gradient_norms(model, BATCHES, parameters=["*layers.0.*", "*embed_tokens*"])
    assert [value.requires_grad for value in model.parameters()] == before
    broken = {**BATCHES[0], "input_ids": BATCHES[0]["input_ids"] + VOCABULARY}
    with pytest.raises(IndexError):
        gradient_norms(model, [broken], parameters=["*layers.0.*", "*embed_tokens*"])
    assert [value.requires_grad for value in model.parameters()] == before


def test_the_backward_pass_ends_at_the_lowest_chosen_layer() -> None:
    """Though adapters below it require grad."""
    model = adapted_llama()
    reached: list[str] = []

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            if output.requires_grad:
                output.register_hook(lambda _gradient: reached.append(name))

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(watch(name))
    gradient_norms(model, BATCHES, parameters=["*v_proj.lora_B*"])
    assert any("lm_head" in name for name in reached)
    assert not any("q_proj" in name or "lora_A" in name for name in reached)


class Odd(nn.Module):
    """A layer of its own kind, with a weight of the width."""

    def __init__(self, compute: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, WIDTH))
        self.compute = compute

    def forward(self, x: Tensor) -> Any:
        return self.compute(x, self.weight)


def odd_model(compute: Callable[[Tensor, Tensor], Any]) -> TinyLM:
    model = TinyLM(lambda m, x: m.odd(x))  # type: ignore[operator]
    model.odd = Odd(compute)
    return model


def test_a_layer_of_unknown_type_matches_the_loop() -> None:
    model = odd_model(lambda x, weight: (x @ torch.outer(weight, weight)).tanh() + x * weight.sum())
    got = gradient_norms(model, BATCHES, parameters=["odd.weight", "head.weight"])
    torch.testing.assert_close(got, slow_norms(model, SAMPLES, ["odd.weight", "head.weight"]), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("compute", "said"),
    [
        pytest.param(lambda x, w: (x - x.mean((0, 1))) * w, r"odd got .* 3 samples \(Odd\)", id="mixes samples"),
        pytest.param(lambda x, w: (x * w, w), r"odd.weight \(Odd\) returns more than one tensor", id="two outputs"),
        pytest.param(lambda x, w: x * w * x.sum().item(), r"odd.weight \(Odd\) cannot be run", id="needs numbers"),
    ],
)
def test_a_layer_of_unknown_type_is_refused_by_name(compute: Callable[[Tensor, Tensor], Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        gradient_norms(odd_model(compute), BATCHES, parameters=["odd.weight"])


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(lambda m, x: x @ m.one.weight, id="never called"),
        pytest.param(lambda m, x: m.one(x) @ m.one.weight, id="called too"),
        pytest.param(lambda m, x: m.one(x) + m.one.weight.norm(), id="regularised"),
    ],
)
def test_a_parameter_that_is_used_without_calling_its_layer_is_refused(
    body: Callable[[TinyLM, Tensor], Tensor],
) -> None:
    with pytest.raises(ModelError, match=r"one.weight is used other than by calling"):
        gradient_norms(TinyLM(body), BATCHES, parameters=["one.weight"])


def test_a_layer_whose_input_is_changed_later_is_refused() -> None:
    def body(model: TinyLM, x: Tensor) -> Tensor:
        states = x * 1
        return torch.add(model.one(states), states.mul_(2))

    with pytest.raises(ModelError, match=r"input of one.weight \(Linear\) is changed in place"):
        gradient_norms(TinyLM(body), BATCHES, parameters=["one.weight"])


def test_attention_that_uses_its_weights_directly_is_refused_by_name() -> None:
    model = TinyLM(lambda m, x: m.attention(x, x, x, need_weights=False)[0])  # type: ignore[operator]
    model.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
    with pytest.raises(ModelError, match=r"attention.out_proj.weight"):
        gradient_norms(model, BATCHES, parameters=["attention.out_proj.weight"])
    with pytest.raises(ModelError, match=r"attention.in_proj_weight \(MultiheadAttention\)"):
        gradient_norms(model, BATCHES, parameters=["attention.in_proj_weight"])


def test_quantised_weights_are_refused_by_name() -> None:
    model = TinyLM(lambda m, x: m.one(x))
    model.codes = nn.Parameter(torch.zeros(3, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(ModelError, match="codes holds integers"):
        gradient_norms(model, BATCHES, parameters=["codes"])


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
