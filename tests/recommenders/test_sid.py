"""An LLM over semantic ids: its new tokens, its beams against all items scored, and the effort of its new rows."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import yaml
from tokenizers.processors import TemplateProcessing
from transformers import GPT2Config, GPT2LMHeadModel

from dealrec.config import Config
from dealrec.config.files import load
from dealrec.effort import gradient_norms
from dealrec.engine.runner import run
from dealrec.engine.stage import Silent
from dealrec.errors import ConfigError, DataError, ModelError
from dealrec.recommenders.bigrec.model import attach_lora, load_adapter, load_llm
from dealrec.recommenders.sid import SID, add_tokens, texts_of_codes, trained_rows
from dealrec.recommenders.sid.decoding import CausalDecoder
from dealrec.recommenders.sid.recommender import frame
from dealrec.sequences import IGNORED, collate, sequence_losses
from dealrec.stages.pipeline import stages_until
from dealrec.stages.validation import check
from tests.conftest import write_small_config
from tests.recommenders.test_llm_checks import made as saved

CODES = torch.tensor([[a, b] for a in range(4) for b in range(3)])
TEMPLATE = "seen {history}; next "


def untied(model: Any) -> Any:
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone() * 1.5)
    model._tied_weights_keys = {}
    return model


def made(llm: Path, *, tied: bool = True, lora: bool = True) -> SID:
    model, tokenizer = load_llm(str(llm))
    model = model if tied else untied(model)
    ids = add_tokens(model, tokenizer, texts_of_codes(CODES), seed=1)
    if lora:
        model = attach_lora(
            model,
            r=2,
            alpha=4,
            dropout=0.0,
            target_modules=["q_proj", "v_proj"],
            seed=0,
            tokens=trained_rows(model, ids),
        )
        with torch.no_grad():  # as after some training: B is not zero
            for name, value in model.named_parameters():
                if "lora_B" in name:
                    value.normal_(generator=torch.Generator().manual_seed(2))
    return SID(model.eval(), tokenizer, ids, [f"item-{n}" for n in range(12)], template=TEMPLATE, max_items=3)


def test_each_code_is_a_token_of_its_own(tiny_llm: Path) -> None:
    sid = made(tiny_llm, lora=False)
    before = len(load_llm(str(tiny_llm))[1])
    assert sid.ids.texts[4] == ["<a_1>", "<b_1>"]
    assert sid.ids.tokens.unique().tolist() == list(range(before, before + 7))
    assert sid.tokenizer.encode("<a_1><b_1>", add_special_tokens=False) == sid.ids.tokens[4].tolist()
    rows = sid.model.get_input_embeddings().weight
    assert len(rows) == before + 7
    assert torch.equal(rows, made(tiny_llm, lora=False).model.get_input_embeddings().weight)
    again = add_tokens(sid.model, sid.tokenizer, texts_of_codes(CODES), seed=9)  # there is nothing new
    assert torch.equal(again.tokens, sid.ids.tokens)
    assert torch.equal(rows, sid.model.get_input_embeddings().weight)


def test_a_sample_is_the_prompt_and_the_target_s_tokens(tiny_llm: Path) -> None:
    sid = made(tiny_llm, lora=False)
    encoded = sid.encode(["item-0", "item-1", "item-5", "item-11"], "item-7")
    assert sid.tokenizer.decode(encoded.input_ids) == "seen <a_0><b_1><a_1><b_2><a_3><b_2>; next <a_2><b_1>"
    assert encoded.labels[-2:] == sid.ids.tokens[7].tolist()
    assert set(encoded.labels[:-2]) == {IGNORED}


def test_what_the_tokenizer_puts_after_every_text_ends_no_prompt(tiny_llm: Path) -> None:
    tokenizer = load_llm(str(tiny_llm))[1]
    ends = TemplateProcessing(single="<|pad|> $A <|end|>", special_tokens=[("<|pad|>", 0), ("<|end|>", 1)])
    tokenizer.backend_tokenizer.post_processor = ends
    for template, prompt in ((TEMPLATE, ["<|pad|>seen ", "; next "]), ("{history}", ["<|pad|>", ""])):
        assert [tokenizer.decode(tokens) for tokens in frame(tokenizer, template)] == prompt


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False])
def test_beams_as_wide_as_the_catalogue_rank_as_all_items_scored(tied: bool, tiny_llm: Path) -> None:
    """The slow twin scores each item by itself, unpadded."""
    sid = made(tiny_llm, tied=tied)
    histories = [["item-1"], ["item-4", "item-2", "item-9"], ["item-3", "item-3"]]
    seen = [["item-1"], [], ["item-3", "item-0", "item-11"]]
    found = sid.recommend(histories, seen=seen, k=12, beams=12, batch_size=3)
    for history, excluded, recommended in zip(histories, seen, found, strict=True):
        scores = {}
        for item in sid.items:
            if item not in excluded:
                batch = collate([sid.encode(history, item)], pad_id=sid.pad_id)
                scores[item] = -float(sequence_losses(sid.model, batch)) * 2
        assert recommended.items == sorted(scores, key=lambda item: -scores[item])
        assert recommended.written == "".join(sid.ids.texts[sid.row[recommended.items[0]]])


def test_a_decoder_without_a_cache_reads_all_again(tiny_llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sid, prompts = made(tiny_llm), [[5, 6, 7], [8, 9, 10, 11, 12]]
    tokens = torch.tensor([[20, 21], [22, 23]])

    def steps() -> list[torch.Tensor]:
        decoder = CausalDecoder(sid.model, prompts, pad_id=sid.pad_id)
        with torch.inference_mode():
            first = decoder.step(decoder.start)
            decoder.follow(torch.tensor([[0, 0], [0, 0]]))
            return [first, decoder.step(tokens)]

    fast = steps()
    monkeypatch.setattr("dealrec.recommenders.sid.decoding.new_cache", lambda _model: None)
    for left, right in zip(fast, steps(), strict=True):
        assert torch.allclose(left, right, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("lora", [True, False])
def test_effort_covers_the_rows_of_the_tokens(tied: bool, lora: bool, tiny_llm: Path) -> None:
    sid = made(tiny_llm, tied=tied, lora=lora)
    samples = [sid.encode([f"item-{n}", "item-2"][: 1 + n % 2], f"item-{n + 1}") for n in range(5)]
    batch = collate(samples, pad_id=sid.pad_id)
    names = [name for name, value in sid.model.named_parameters() if value.requires_grad]
    if lora:
        rows = [name for name in names if "trainable_tokens_delta" in name]
        assert len(rows) == (1 if tied else 2)
    found = gradient_norms(sid.model, [batch])
    only_rows = gradient_norms(sid.model, [batch], parameters=rows) if lora else found
    for place, sample in enumerate(samples):
        loss = sequence_losses(sid.model, collate([sample], pad_id=sid.pad_id)).sum()
        values = {name: value for name, value in sid.model.named_parameters() if value.requires_grad}
        gradients = dict(zip(values, torch.autograd.grad(loss, list(values.values())), strict=True))
        squares = {name: float(value.square().sum()) for name, value in gradients.items()}
        assert float(found[place]) == pytest.approx(sum(squares.values()) ** 0.5, rel=1e-4)
        if lora:
            assert float(only_rows[place]) == pytest.approx(sum(squares[name] for name in rows) ** 0.5, rel=1e-4)
            assert squares[rows[0]] > 0


def test_an_adapter_comes_back_with_its_rows(tiny_llm: Path, tmp_path: Path) -> None:
    sid = made(tiny_llm)
    with torch.no_grad():
        next(value for name, value in sid.model.named_parameters() if "tokens_delta" in name).add_(0.3)
    sid.model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    fresh = made(tiny_llm, lora=False)
    loaded = load_adapter(fresh.model, tmp_path)
    batch = collate([sid.encode(["item-1"], "item-2")], pad_id=sid.pad_id)
    assert torch.allclose(sequence_losses(loaded, batch), sequence_losses(sid.model, batch), atol=1e-6)


def config_of(folder: Path, model: Path, /, **sections: Any) -> Config:
    content: dict[str, Any] = {
        "recommender": "sid",
        "data": {"split": "time", "warm_share": 0.5, "samples_per_user": 2},
    }
    path = write_small_config(folder, model, **content)
    written = yaml.safe_load(path.read_text())
    written["warmstart"] = {"epochs": 1, "learning_rate": 0.01}
    written["select"] |= {"arms": {"by-effort": {"method": "effort"}}}
    for name, section in sections.items():
        written[name] = {**written.get(name, {}), **section} if isinstance(section, dict) else section
    path.write_text(yaml.safe_dump(written))
    return load(path)


def own_table(folder: Path, *, changed: Any = None) -> dict[str, Any]:
    rows = [{"item_id": n, "tokens": f"<a_{n // 6}><b_{n % 6}>"} for n in range(30)]
    pl.DataFrame(changed(rows) if changed else rows).write_parquet(folder / "tokens.parquet")
    return {"item_tokens": str(folder / "tokens.parquet")}


@pytest.mark.slow
@pytest.mark.parametrize("full", [True, False])
def test_a_run_goes_all_the_way(full: bool, tmp_path: Path, tiny_llm: Path, text_encoder: Path) -> None:
    fitted = {"text_encoder": str(text_encoder), "codes": {"levels": 2, "codes": 4, "epochs": 2}}
    sid = own_table(tmp_path) if full else fitted
    config = config_of(tmp_path, tiny_llm, sid=sid, finetune={"full": full})
    run(config, tmp_path / "run", stages_until(config, "evaluate"), progress=Silent())
    items = pl.read_parquet(tmp_path / "run" / "warmstart" / "items.parquet")
    assert items["tokens"].list.len().unique().to_list() == [2 if full else 3]
    if full:
        assert items["tokens"].to_list()[7] == ["<a_1>", "<b_1>"]
    folders = [tmp_path / "run" / name for name in ("warmstart/model", "finetune/selected")]
    assert [(folder / "adapter_config.json").exists() for folder in folders] == [not full] * 2
    users = pl.read_parquet(tmp_path / "run" / "evaluate" / "selected" / "per_user.parquet")
    assert users["loss"].drop_nulls().is_finite().all()
    assert users["recall@5"].drop_nulls().is_between(0, 1).all()
    lines = (tmp_path / "run" / "export" / "train.jsonl").read_text().splitlines()
    assert len(lines) == config.select.budget


@pytest.mark.parametrize(
    ("sections", "error", "says"),
    [
        ({"evaluate": {"log_rank": True}}, ConfigError, "log_rank is not measured"),
        ({"llm": {"quantization": "4bit"}}, ConfigError, "without llm.quantization"),
        ({"sid": {"text_encoder": "/nowhere"}}, ModelError, "sid.text_encoder"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_computed(
    sections: dict[str, Any], error: type[Exception], says: str, tmp_path: Path, tiny_llm: Path, text_encoder: Path
) -> None:
    sections["sid"] = {"text_encoder": str(text_encoder), **sections.get("sid", {})}
    with pytest.raises(error, match=says):
        check(config_of(tmp_path, tiny_llm, **sections), warn=lambda _: None)


@pytest.mark.slow
def test_a_history_beyond_the_positions_is_refused_where_they_end_and_else_warned_of(
    tmp_path: Path, tiny_llm: Path
) -> None:
    """Two tokens an item, and those of the template: of exactly as many as there are positions nothing is said."""
    config = GPT2Config(vocab_size=258, n_embd=8, n_layer=1, n_head=2, n_positions=60, bos_token_id=0, eos_token_id=1)
    gpt2 = saved(GPT2LMHeadModel, config, tmp_path / "gpt2", tiny_llm)
    beside = len(TEMPLATE.replace("{history}", ""))
    fits, warnings = (60 - beside) // 2 - 1, list[str]()
    assert 60 - beside == 2 * (fits + 1)
    for llm, most, positions in ((gpt2, fits, 60), (tiny_llm, (2048 - beside) // 2 - 1, 2048)):
        for more in (0, 1):
            sid = own_table(tmp_path) | {"template": TEMPLATE, "max_items": most + more}
            run_config = config_of(tmp_path, llm, sid=sid)
            if more and llm is gpt2:
                with pytest.raises(
                    ConfigError, match=r"The 62 tokens of sid\.max_items .*60 positions \(n_positions\)"
                ):
                    check(run_config, warn=warnings.append)
            else:
                check(run_config, warn=warnings.append)
            told = [warning for warning in warnings if "sid.max_items" in warning]
            assert len(told) == (more and llm is tiny_llm), positions
    assert "2,050 tokens" in told[0]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (lambda rows: rows[:-1], "1 items of the run have no tokens, the first '29'"),
        (lambda rows: [row | {"tokens": "<a_0>"} if row["item_id"] == 3 else row for row in rows], "1 to 2 tokens"),
        (lambda rows: [row | {"tokens": "<a_0><b_0>"} for row in rows], "two items have the same tokens"),
    ],
)
def test_a_table_of_tokens_that_spells_no_catalogue_is_refused(
    changed: Any, says: str, tmp_path: Path, tiny_llm: Path
) -> None:
    with pytest.raises(DataError, match=says):
        check(config_of(tmp_path, tiny_llm, sid=own_table(tmp_path, changed=changed)), warn=lambda _: None)


def test_a_warm_start_is_demanded_unless_the_tokens_are_the_user_s(tmp_path: Path, tiny_llm: Path) -> None:
    with pytest.raises(ConfigError, match="has learnt nothing without a warm start"):
        config_of(tmp_path, tiny_llm, data={"warm_share": 0.0})
    assert config_of(tmp_path, tiny_llm, data={"warm_share": 0.0}, sid=own_table(tmp_path)).recommender == "sid"
