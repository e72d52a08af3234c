"""Weights in bfloat16 or quantised: what loads, what stays float32, and how far norms are from those in float32."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dealrec.config.files import parse
from dealrec.devices import compute_device, resolved_dtype
from dealrec.effort import gradient_norms
from dealrec.errors import ConfigError
from dealrec.recommenders.bigrec import embed, generate
from dealrec.recommenders.bigrec.model import (
    Dtype,
    attach_lora,
    load_adapter,
    load_llm,
    quantization_config,
)
from dealrec.sequences import Encoded, collate
from dealrec.stages.recommenders import bigrec


def adapted(folder: Path, dtype: Dtype) -> tuple[Any, Any]:
    model, tokenizer = load_llm(str(folder), dtype=dtype)
    model = attach_lora(model, r=2, alpha=4, dropout=0.0, target_modules=["q_proj", "v_proj"], seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.copy_(0.5 * torch.randn(value.shape, generator=generator))
    return model, tokenizer


def batches() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(5, 250, (length,), generator=generator).tolist() for length in range(6, 22)]
    samples = [Encoded(row, [-100] * (len(row) - 3) + row[-3:]) for row in rows]
    return [collate(samples[start : start + 4], pad_id=0) for start in range(0, 16, 4)]


def ranks(values: torch.Tensor) -> torch.Tensor:
    return values.argsort().argsort().double()


def test_auto_is_single_precision_without_a_gpu_that_has_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for there, has, wanted in (
        (False, False, torch.float32),
        (True, False, torch.float32),
        (True, True, torch.bfloat16),
    ):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has, **_options: has)
        device = compute_device()
        assert resolved_dtype("auto", device) == wanted
        assert resolved_dtype("float32", device) == torch.float32
        assert resolved_dtype("bfloat16", device) == torch.bfloat16


def test_norms_over_a_base_in_bfloat16_are_float32_and_rank_alike(tiny_llm: Path) -> None:
    exact, _ = adapted(tiny_llm, "float32")
    model, tokenizer = adapted(tiny_llm, "bfloat16")
    kinds = {value.dtype for name, value in model.named_parameters() if "lora_" not in name}
    assert kinds == {torch.bfloat16}
    assert {value.dtype for value in model.parameters() if value.requires_grad} == {torch.float32}
    norms, expected = gradient_norms(model, batches()), gradient_norms(exact, batches())
    assert norms.dtype == torch.float32
    assert not torch.equal(norms, expected)
    torch.testing.assert_close(norms, expected, rtol=0.1, atol=0)
    assert torch.corrcoef(torch.stack([ranks(norms), ranks(expected)]))[0, 1] > 0.95
    rows = [tokenizer.encode("Films: a, b"), tokenizer.encode("x")]
    assert len(generate(model.eval(), tokenizer, rows, beams=2, max_new_tokens=4)) == 2
    assert embed(model.get_base_model(), tokenizer, ["Alien"], batch_tokens=40).dtype == torch.float32


def test_an_adapter_over_bfloat16_answers_alike_when_loaded_again(tiny_llm: Path, tmp_path: Path) -> None:
    model, _ = adapted(tiny_llm, "bfloat16")
    model.save_pretrained(str(tmp_path / "adapter"))
    again = load_adapter(load_llm(str(tiny_llm), dtype="bfloat16")[0], tmp_path / "adapter", trainable=True)
    assert torch.equal(gradient_norms(again, batches()), gradient_norms(model, batches()))


def test_what_bitsandbytes_is_told() -> None:
    assert quantization_config("8bit", torch.bfloat16).quantization_method() == "llm_int8"
    four = quantization_config("4bit", torch.bfloat16)
    assert four.quantization_method() == "nf4"
    assert four.bnb_4bit_compute_dtype == torch.bfloat16
    assert four.bnb_4bit_use_double_quant


@pytest.mark.parametrize(
    ("gpu", "package", "finetune", "said"),
    [
        (False, True, {}, "needs a CUDA GPU"),
        (True, False, {}, "needs bitsandbytes.*pip install"),
        (True, True, {"full": True}, r"finetune\.full"),
        (True, True, {}, None),
    ],
)
def test_quantisation_is_refused_where_it_cannot_be(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, package: bool, finetune: dict[str, Any], said: str | None
) -> None:
    config = parse({"llm": {"quantization": "4bit"}, "finetune": finetune}, base=Path.cwd())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(bigrec, "find_spec", lambda _name: object() if package else None)
    if said is None:
        bigrec.check_quantization(config)
    else:
        with pytest.raises(ConfigError, match=said):
            bigrec.check_quantization(config)
