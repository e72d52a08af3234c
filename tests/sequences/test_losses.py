"""Losses of single samples, and the batches they come in."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    M2M100Config,
    M2M100ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from dealrec.sequences import Encoded, collate, plan_batches, sequence_losses


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


def tiny_encoder_decoder(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "t5":
        config = T5Config(  # type: ignore[call-arg]
            vocab_size=17,
            d_model=8,
            d_kv=4,
            d_ff=8,
            num_layers=1,
            num_heads=2,
            relative_attention_num_buckets=4,
            decoder_start_token_id=0,
        )
        return T5ForConditionalGeneration(config).eval()
    sizes: dict[str, Any] = {
        name: 1 if name.endswith("layers") else 2 if name.endswith("heads") else 8
        for side in ("encoder", "decoder")
        for name in (f"{side}_layers", f"{side}_attention_heads", f"{side}_ffn_dim")
    }
    if kind == "bart":
        return BartForConditionalGeneration(BartConfig(vocab_size=17, d_model=8, init_std=0.5, **sizes)).eval()
    return M2M100ForConditionalGeneration(M2M100Config(vocab_size=17, d_model=8, init_std=0.5, **sizes)).eval()


SEQUENCE_PAIRS = [
    Encoded([5, 6, 7, 8, 9], [10, 11]),
    Encoded([12], [3, 4, 5, 6, 7, 8, 2]),  # labels longer than inputs
    Encoded([13, 14], [9, -100, 11, 2]),
]


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("kind", ["t5", "bart", "m2m"])
def test_losses_of_encoder_decoders_are_the_models_own_for_single_samples(kind: str, adapted: bool) -> None:
    """M2M cannot shift labels on its own."""
    model = tiny_encoder_decoder(kind)
    if adapted:
        names = ["q", "v"] if kind == "t5" else ["q_proj", "v_proj"]
        settings = LoraConfig(r=2, target_modules=names, init_lora_weights=False, task_type="SEQ_2_SEQ_LM")
        model = get_peft_model(model, settings).eval()
    got = sequence_losses(model, collate(SEQUENCE_PAIRS, pad_id=1))
    own = [
        float(model(input_ids=torch.tensor([s.input_ids]), labels=torch.tensor([s.labels])).loss.detach())
        for s in SEQUENCE_PAIRS
    ]
    torch.testing.assert_close(got.detach(), torch.tensor(own))


def test_the_first_label_of_an_encoder_decoder_counts() -> None:
    model = tiny_encoder_decoder("t5")
    got = sequence_losses(model, collate([Encoded([5, 6], [7])], pad_id=0))
    logits = model(input_ids=torch.tensor([[5, 6]]), decoder_input_ids=torch.tensor([[0]])).logits[0, 0]
    torch.testing.assert_close(got[0], -logits.log_softmax(0)[7])


def test_an_encoder_decoders_sample_without_labels_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"samples \[0\] of the batch have no label token"):
        sequence_losses(tiny_encoder_decoder("t5"), collate([Encoded([1], []), Encoded([1], [2])], pad_id=0))


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


def test_labels_are_padded_to_their_own_longest() -> None:
    made = collate([Encoded([1, 2, 3], [4]), Encoded([5], [6, 7, 8, 9])], pad_id=0)
    assert made["input_ids"].tolist() == [[1, 2, 3], [5, 0, 0]]
    assert made["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert made["labels"].tolist() == [[4, -100, -100, -100], [6, 7, 8, 9]]


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
    assert plan_batches([5, 5, 3, 1], batch_tokens=10, batch_size=1) == [[0], [1], [2], [3]]
    assert plan_batches([5, 0, 0], batch_size=2) == [[0, 1], [2]]
    assert plan_batches([], batch_tokens=10) == plan_batches([], batch_size=2) == []


@pytest.mark.parametrize("generator", [None, torch.Generator().manual_seed(0)], ids=["in order", "shuffled"])
def test_every_sequence_is_in_one_batch_with_others_of_its_length(generator: torch.Generator | None) -> None:
    lengths = [1, 5, 3, 5, 2, 4, 1]
    plan = plan_batches(lengths, batch_size=3, generator=generator)
    assert sorted(i for batch in plan for i in batch) == list(range(7))
    assert sorted(sorted(lengths[i] for i in batch) for batch in plan) == [[1], [1, 2, 3], [4, 5, 5]]


def test_a_shuffled_plan_follows_from_the_seed() -> None:
    def plan(seed: int) -> list[list[int]]:
        return plan_batches([2] * 30, batch_size=4, generator=torch.Generator().manual_seed(seed))

    assert plan(1) == plan(1) != plan(2)
    assert plan_batches([2] * 8, batch_size=4) == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_wrapped_for_several_processes_a_model_has_the_losses_and_gradients_of_its_own(
    kind: str, adapted: bool
) -> None:
    """It computes no more logits than alone, either: the last label's column is none that a sample needs."""
    model = tiny(kind) if kind == "llama" else tiny_encoder_decoder(kind)
    samples = [Encoded([1, 2, 3, 4, 5], [-100, -100, -100, 4, 5])] if kind == "llama" else SEQUENCE_PAIRS
    if adapted:
        settings = LoraConfig(r=2, target_modules=["q_proj" if kind == "llama" else "q"], init_lora_weights=False)
        model = get_peft_model(model, settings).eval()
    columns: list[int] = []
    base = model.get_base_model() if adapted else model
    base.register_forward_hook(lambda _model, _inputs, output: columns.append(output.logits.shape[1]))
    losses, gradients = [], []
    for called in (model, DistributedDataParallel(model, find_unused_parameters=True)):
        losses.append(sequence_losses(called, collate(samples, pad_id=0)))
        losses[-1].mean().backward()
        gradients.append([value.grad.clone() for value in model.parameters() if value.grad is not None])
        model.zero_grad()
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(gradients[1], gradients[0])
    assert columns == ([2, 2] if kind == "llama" else [7, 7])
