"""Gradient alignment of language models against one backward pass a sample."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from dealrec.influence.alignment import alignments, validation_gradient
from dealrec.sequences import Encoded, collate, plan_batches, sequence_losses

VOCABULARY = 31


def llama() -> Any:
    sizes: Any = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=VOCABULARY, **sizes, num_key_value_heads=2, initializer_range=0.3)
    model = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    for name, value in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(value, std=0.3)
    return model


def t5() -> Any:
    sizes: Any = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
    return T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, **sizes))


def samples(model: nn.Module, count: int, seed: int) -> list[Encoded]:
    generator = torch.Generator().manual_seed(seed)

    def tokens(length: int) -> Any:
        return torch.randint(1, VOCABULARY, (length,), generator=generator).tolist()

    lengths = torch.randint(3, 12, (count,), generator=generator).tolist()
    if isinstance(model, T5ForConditionalGeneration):
        return [Encoded(tokens(length), tokens(3)) for length in lengths]
    rows = [tokens(length) for length in lengths]
    return [Encoded(row, [-100] * (len(row) - 2) + row[-2:]) for row in rows]


def batches(rows: Sequence[Encoded], batch_tokens: int) -> tuple[list[dict[str, Tensor]], list[int]]:
    plan = plan_batches([len(row.input_ids) for row in rows], batch_tokens=batch_tokens)
    return [collate([rows[i] for i in batch], pad_id=0) for batch in plan], [i for batch in plan for i in batch]


@pytest.mark.parametrize("make", [llama, t5])
@pytest.mark.parametrize("batch_tokens", [1, 40, 1000])
def test_alignment_is_the_product_of_two_gradients(make: Any, batch_tokens: int) -> None:
    torch.manual_seed(0)
    model = make().double().eval()
    learnable = [value for value in model.parameters() if value.requires_grad]

    def gradient(row: Encoded) -> Tensor:
        loss = sequence_losses(model, collate([row], pad_id=0)).sum()
        parts = torch.autograd.grad(loss, learnable, allow_unused=True)
        return torch.cat([part.flatten() for part in parts if part is not None])

    valid, candidates = samples(model, 5, seed=1), samples(model, 7, seed=2)
    mean = torch.stack([gradient(row) for row in valid]).mean(0)
    expected = torch.stack([gradient(row) @ mean for row in candidates])
    candidate_batches, order = batches(candidates, batch_tokens)
    toward = validation_gradient(model, batches(valid, batch_tokens)[0])
    found = torch.empty(len(order), dtype=torch.float64)
    found[order] = alignments(model, candidate_batches, toward)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)  # their norms compute in float32
    assert all(value.grad is None for value in model.parameters())


def test_a_small_step_lowers_the_loss_by_as_much() -> None:
    """The sign: a step against the gradient of validation lowers the losses of what is aligned with it."""
    torch.manual_seed(0)
    model = llama().double().eval()
    valid, (candidates, order) = samples(model, 5, seed=1), batches(samples(model, 6, seed=2), 1000)
    gradient = validation_gradient(model, batches(valid, 1000)[0])
    scores = alignments(model, candidates, gradient)

    def losses(step: float) -> Tensor:
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for name, value in moved.named_parameters():
                if name in gradient:
                    value -= step * gradient[name]
            return torch.cat([sequence_losses(moved, batch) for batch in candidates])

    step = 1e-3
    torch.testing.assert_close((losses(-step) - losses(step)) / (2 * step), scores, rtol=5e-2, atol=2e-2)
    assert float(scores.abs().max()) > 0.1
    assert len(order) == 6
