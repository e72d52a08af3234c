"""Losses of single samples, and the batches they come in."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from dealrec.effort import Encoded, collate, plan_batches, sequence_losses


def tiny(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "gpt2":
        config = GPT2Config(vocab_size=17, n_embd=8, n_layer=1, n_head=2, n_positions=16)
        return GPT2LMHeadModel(config).eval()
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=17,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            initializer_range=0.5,
        )
    ).eval()


SAMPLES = [
    Encoded([1, 2, 3, 4, 5], [-100, -100, 3, 4, 5]),
    Encoded([6, 7], [6, 7]),  # the label of the first token is not counted
    Encoded([8, 9, 10, 11], [-100, 9, -100, 11]),
]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_losses_are_the_models_own_for_single_samples(kind: str) -> None:
    model = tiny(kind)
    got = sequence_losses(model, collate(SAMPLES, pad_id=0))
    own = [
        float(model(input_ids=torch.tensor([s.input_ids]), labels=torch.tensor([s.labels])).loss.detach())
        for s in SAMPLES
    ]
    torch.testing.assert_close(got.detach(), torch.tensor(own))


class Bigram(nn.Module):
    """Logits that depend on the current token alone: logits[t] is row input_ids[t] of a table."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = table

    def forward(self, input_ids: torch.Tensor, **_unused: object) -> Any:
        return type("Output", (), {"logits": self.table[input_ids]})


def test_losses_by_hand() -> None:
    table = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    chance = table.softmax(1)
    samples = [Encoded([1, 2, 1, 0], [-100, 2, 1, 0]), Encoded([2, 1], [-100, 1])]
    first = -(chance[1, 2].log() + chance[2, 1].log() + chance[1, 0].log()) / 3
    second = -chance[2, 1].log()
    got = sequence_losses(Bigram(table), collate(samples, pad_id=0))
    torch.testing.assert_close(got, torch.stack([first, second]))


def test_a_sample_without_labels_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"samples \[1\] of the batch have no label token"):
        sequence_losses(tiny("llama"), collate([SAMPLES[0], Encoded([1, 2], [-100, -100])], pad_id=0))


def test_collated_samples_are_padded_on_the_right() -> None:
    made = collate([Encoded([1, 2, 3], [-100, 2, 3]), Encoded([4], [4])], pad_id=9)
    assert made["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert made["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert made["labels"].tolist() == [[-100, 2, 3], [4, -100, -100]]


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 100))
def test_plans_hold_each_index_once_within_the_tokens(lengths: list[int], batch_tokens: int) -> None:
    plan = plan_batches(lengths, batch_tokens=batch_tokens)
    assert sorted(i for batch in plan for i in batch) == list(range(len(lengths)))
    for batch in plan:
        padded = max(lengths[i] for i in batch) * len(batch)
        assert padded <= batch_tokens or len(batch) == 1


def test_a_plan_fills_batches_to_the_brim() -> None:
    assert plan_batches([5, 5, 5, 5], batch_tokens=10) == [[0, 1], [2, 3]]
    assert plan_batches([5, 5, 5, 5], batch_tokens=14) == [[0, 1], [2, 3]]
    assert plan_batches([], batch_tokens=10) == []
