"""What `validate` and the beginning of `run` find out about an LLM without its weights."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFT_TARGETS
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from dealrec.errors import ConfigError, ModelError
from dealrec.recommenders.bigrec import Prompter, checks
from dealrec.recommenders.bigrec.model import (
    attach_empty_adapter,
    attach_lora,
    load_adapter,
    load_model,
    load_tokenizer,
    usual_targets,
    usual_targets_of,
)
from dealrec.recommenders.files import adapter_base
from dealrec.stages import feasibility
from tests.conftest import Cli
from tests.families.made import CASES

TEMPLATE = "Films: {history}\nNext: "
Config = Callable[..., Path]


def made(kind: Any, config: Any, folder: Path, tokenizer: Path) -> Path:
    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def gpt2(tiny_llm: Path, tmp_path: Path) -> Path:
    config = GPT2Config(vocab_size=258, n_embd=8, n_layer=1, n_head=2, n_positions=600, bos_token_id=0, eos_token_id=1)
    return made(GPT2LMHeadModel, config, tmp_path / "gpt2", tiny_llm)


@pytest.fixture
def opt(tiny_llm: Path, tmp_path: Path) -> Path:
    sizes: dict[str, Any] = {"hidden_size": 8, "ffn_dim": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = OPTConfig(vocab_size=258, max_position_embeddings=600, word_embed_proj_dim=8, **sizes)
    return made(OPTForCausalLM, config, tmp_path / "opt", tiny_llm)


@pytest.fixture
def llama(tiny_llm: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llm, tmp_path / "llama"))


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def prompter(folder: Path, titles: dict[int | str, str], **options: Any) -> Prompter:
    return Prompter(load_tokenizer(str(folder)), titles, template=TEMPLATE, **options)


@pytest.mark.parametrize(
    ("targets", "absent"),
    [
        (["q_proj", "vproj"], "vproj"),
        (["q_proj", ".*v_proj"], r"\.\*v_proj"),
        (["base_model.model.model.layers.0.self_attn.q_proj"], r"base_model\S*q_proj"),
        ([""], ""),
        (["all-linear"], "all-linear"),
        (["proj"], "proj"),
    ],
)
def test_a_layer_that_the_llm_has_not_is_refused_even_beside_those_it_has(
    tiny_llm: Path, targets: list[str], absent: str
) -> None:
    layers = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    with pytest.raises(ModelError, match=f"No LoRA can be attached to {absent}: .*some of: {layers};"):
        attach_lora(load_model(str(tiny_llm), empty=True), r=2, alpha=4, dropout=0, target_modules=targets, seed=0)


@pytest.mark.parametrize(
    ("targets", "layers"),
    [
        (["q_proj"], 2),
        (["self_attn.q_proj", "mlp.down_proj"], 4),
        (["model.layers.1.self_attn.q_proj"], 1),
        (["lm_head"], 1),
        (["embed_tokens"], 1),
    ],
)
def test_layers_are_named_whole_or_by_their_ends(tiny_llm: Path, targets: list[str], layers: int) -> None:
    model = load_model(str(tiny_llm), empty=True)
    model = attach_lora(model, r=2, alpha=4, dropout=0, target_modules=targets, seed=0)
    assert sum("lora_A" in name or "lora_embedding_A" in name for name, _ in model.named_parameters()) == layers


def test_a_layer_of_a_kind_that_lora_does_not_know_is_refused(tiny_llm: Path) -> None:
    model = load_model(str(tiny_llm), empty=True)
    with pytest.raises(ModelError, match=r"No LoRA can be attached to self_attn: .*some of: down_proj"):
        attach_lora(model, r=2, alpha=4, dropout=0, target_modules=["self_attn"], seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["validate", "run"])
def test_gpt2_with_the_layers_of_llama_is_told_its_own_before_anything_is_computed(
    gpt2: Path, write_config: Config, cli: Cli, tmp_path: Path, command: str
) -> None:
    run = tmp_path / "run"
    arguments = ["--run-dir", run] if command == "run" else []
    llm = {"model": str(gpt2), "lora": {"target_modules": ["q_proj", "v_proj"]}}
    status, _, err = cli(command, write_config(llm=llm), *arguments)
    assert status == 2
    assert err.splitlines()[-1] == (
        "error: No LoRA can be attached to q_proj, v_proj: the LLM has no such layer. Set llm.lora.target_modules to"
        " some of: c_attn, c_fc, c_proj; names or their ends after a dot, no patterns."
    )
    assert not (run / "surrogate").exists()
    status, _, err = cli("validate", write_config(llm={"model": str(gpt2)}))
    assert status == 0, err


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("Llama, in the manner of 2", ["q_proj", "v_proj"]),
        ("GPT-2", ["c_attn"]),
        ("GPT-NeoX", ["query_key_value"]),
        ("OLMo", ["q_proj", "v_proj"]),  # which PEFT does not know
    ],
)
def test_unless_it_is_said_the_layers_are_those_that_peft_adapts_in_the_architecture(
    name: str, targets: list[str], tmp_path: Path
) -> None:
    folder = CASES[name].save(tmp_path / "llm")
    empty, known = load_model(str(folder), empty=True), targets if name == "OLMo" else PEFT_TARGETS
    assert usual_targets(empty) == usual_targets_of(str(folder)) == targets
    assert known == targets or known[empty.config.model_type] == targets
    model = attach_lora(empty, r=2, alpha=4, dropout=0, target_modules=None, seed=0)
    assert getattr(model.peft_config["default"], "target_modules") == set(targets)  # noqa: B009


def test_a_pattern_that_peft_has_for_an_architecture_stands_for_the_layers_that_fit(
    tiny_llm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(str(tiny_llm), empty=True)
    monkeypatch.setitem(PEFT_TARGETS, "llama", r"model\.layers\.1\..*\.(k|o)_proj")
    assert usual_targets(model) == ["model.layers.1.self_attn.k_proj", "model.layers.1.self_attn.o_proj"]
    monkeypatch.setitem(PEFT_TARGETS, "llama", r".*language_model.*\.(k|o)_proj")
    assert usual_targets(model) == ["q_proj", "v_proj"]


def test_of_a_model_that_reads_images_the_layers_count_that_text_passes_through(tmp_path: Path) -> None:
    model = load_model(str(CASES["Gemma 3 with images"].save(tmp_path / "llm")), empty=True)
    assert not checks.has_learnt_positions(model)  # those of patches are
    assert usual_targets(model) == [
        f"model.language_model.layers.{layer}.self_attn.{end}" for layer in (0, 1) for end in ("q_proj", "v_proj")
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "Phi-3",
            r"Which layers LoRA usually adapts in the architecture 'phi3' is not known. Set llm\.lora\.target_modules"
            r" to some of: down_proj, gate_up_proj, o_proj, qkv_proj;",
        ),
        ("T5", r"The LLM '.*' is an encoder-decoder \(t5\), and BIGRec needs a causal language model"),
        ("BERT", r"The LLM '.*' is an encoder \(bert\), and BIGRec needs a causal language model"),
    ],
)
def test_what_cannot_be_fine_tuned_by_default_is_refused_in_one_line_before_anything_is_computed(
    name: str, said: str, write_config: Config, cli: Cli, tmp_path: Path
) -> None:
    path = write_config(llm={"model": str(CASES[name].save(tmp_path / "llm"))})
    for arguments in (["validate", path], ["run", path, "--run-dir", tmp_path / "run"]):
        status, _, err = cli(*arguments)
        assert status == 2
        assert re.match(f"error: {said}", err.splitlines()[-1])
    assert not (tmp_path / "run" / "surrogate").exists()


def test_no_weight_is_read(tiny_llm: Path) -> None:
    assert {value.device.type for value in load_model(str(tiny_llm), empty=True).parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("prompt", "new", "said"),
    [
        ({"max_prompt_tokens": 565}, 35, None),
        (
            {"max_prompt_tokens": 566},
            35,
            r"566 \+ max_title_tokens 32 \+ 3 .* 600 positions.*max_prompt_tokens to 565\.",
        ),
        ({"max_prompt_tokens": 565}, 36, r"565 \+ evaluate\.max_new_tokens 36 .* 600 positions.*tokens to 564\."),
        ({"max_prompt_tokens": 565, "max_title_tokens": 40}, 35, r"max_title_tokens 40 \+ 3 .*to 557\."),
        (
            {"max_prompt_tokens": 565, "max_title_tokens": 590},
            35,
            "Lower llm.prompt.max_title_tokens and eval.*LLM with",
        ),
        (
            {"max_prompt_tokens": 565, "max_title_tokens": 550},
            35,
            r"to 47 and shorten llm\.prompt\.template, with which a single item takes 60 tokens",
        ),
    ],
)
@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_prompts_beyond_learnt_positions_are_refused_with_the_number_that_fits(
    request: pytest.FixtureRequest, family: str, prompt: dict[str, int], new: int, said: str | None
) -> None:
    folder: Path = request.getfixturevalue(family)
    model = load_model(str(folder), empty=True)
    made = prompter(folder, {1: "Alien"}, **prompt)
    if said is None:
        assert checks.check_positions(model, made, one_item_tokens=60, max_new_tokens=new) == []
    else:
        with pytest.raises(ConfigError, match=said):
            checks.check_positions(model, made, one_item_tokens=60, max_new_tokens=new)


def test_the_number_that_fits_is_read_and_one_more_is_not(gpt2: Path) -> None:
    model = load_model(str(gpt2))
    for length, fits in ((600, True), (601, False)):
        ids = torch.zeros(1, length, dtype=torch.int64)
        if fits:
            model(ids)
        else:
            with pytest.raises(IndexError):
                model(ids)


def test_computed_positions_are_only_warned_of(llama: Path, tiny_llm: Path, tmp_path: Path) -> None:
    changed(llama / "config.json", max_position_embeddings=500)
    model = load_model(str(llama), empty=True)
    (warning,) = checks.check_positions(model, prompter(llama, {1: "Alien"}), one_item_tokens=60, max_new_tokens=32)
    assert "above the LLM's 500 positions of training (max_position_embeddings)" in warning
    assert "max_prompt_tokens to 465" in warning
    config = GPTJConfig(vocab_size=258, n_positions=64, n_embd=8, n_layer=1, n_head=2, rotary_dim=4)
    table = made(GPTJForCausalLM, config, tmp_path / "gptj", tiny_llm)  # computed, and kept in a table that ends
    assert checks.has_learnt_positions(load_model(str(table), empty=True))
    assert not checks.has_learnt_positions(model)


@pytest.mark.parametrize("command", [["validate"], ["run", "--dry-run", "--run-dir"], ["run", "--run-dir"]])
def test_positions_are_looked_at_before_anything_is_computed(
    gpt2: Path, write_config: Config, cli: Cli, tmp_path: Path, command: list[str]
) -> None:
    llm = {"model": str(gpt2), "lora": {"target_modules": ["c_attn"]}, "prompt": {"max_prompt_tokens": 580}}
    name, *options = command
    status, _, err = cli(name, write_config(llm=llm), *options, *([tmp_path / "run"] if options else []))
    assert status == 2
    assert "580 + max_title_tokens 32 + 3 (quotes and end) are above the LLM's 600 positions (n_positions)" in err
    assert not (tmp_path / "run" / "surrogate").exists()


def test_a_prompt_that_never_fits_is_refused_before_anything_is_computed(write_config: Config, cli: Cli) -> None:
    status, _, err = cli("validate", write_config(), "--set", "llm.prompt.max_prompt_tokens=16")
    assert status == 2
    assert "A prompt with a single item has" in err


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ({"eos_token": "<|eot|>"}, r"eos_token '<\|eot\|>' .* reaches token 258, .* 258 rows"),
        ({"pad_token": "<|fill|>"}, r"pad_token '<\|fill\|>' .* reaches token 258"),
        ({"bos_token": "<|begin|>"}, r"bos_token '<\|begin\|>' .* reaches token 258"),
        ({"additional_special_tokens": ["<|image|>"]}, None),
    ],
)
def test_special_tokens_lie_within_the_embeddings(llama: Path, tokens: dict[str, Any], said: str | None) -> None:
    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.add_special_tokens(tokens)
    tokenizer.save_pretrained(llama)
    tokenizer = load_tokenizer(str(llama))
    if said is None:
        checks.check_tokens(tokenizer, TEMPLATE, rows=258, name="llama")
        with pytest.raises(ModelError, match=r"llm\.prompt\.template .* reaches token 258"):
            checks.check_tokens(tokenizer, f"<|image|> {TEMPLATE}", rows=258, name="llama")
    else:
        with pytest.raises(ModelError, match=said):
            checks.check_tokens(tokenizer, TEMPLATE, rows=258, name="llama")
        checks.check_tokens(tokenizer, TEMPLATE, rows=259, name="llama")


def test_the_tokenizer_is_the_model_s(gpt2: Path, llama: Path, write_config: Config, cli: Cli) -> None:
    content = json.loads((llama / "tokenizer.json").read_text())
    content["model"]["vocab"] |= {f"word{i}": 258 + i for i in range(9)}
    (llama / "tokenizer.json").write_text(json.dumps(content))
    status, _, err = cli("validate", write_config(llm={"model": str(llama)}))
    assert status == 2
    assert "The vocabulary of the tokenizer of" in err
    assert "reaches token 266, and the LLM's embeddings have 258 rows" in err
    content["model"]["vocab"] = {}
    with pytest.raises(ModelError, match=r"makes no token of llm\.prompt\.template"):
        checks.check_tokens(_Empty(), TEMPLATE, rows=258, name="llama")


class _Empty:
    """What transformers makes of a folder whose tokenizer class has no vocabulary beside it."""

    eos_token_id = bos_token_id = pad_token_id = unk_token_id = 0

    def encode(self, _text: str) -> list[int]:
        return []


@pytest.mark.parametrize("command", ["validate", "run"])
def test_an_llm_without_an_end_of_sequence_is_met_first(
    llama: Path, write_config: Config, cli: Cli, tmp_path: Path, command: str
) -> None:
    content = json.loads((llama / "tokenizer_config.json").read_text())
    del content["eos_token"]
    (llama / "tokenizer_config.json").write_text(json.dumps(content))
    arguments = ["--run-dir", tmp_path / "run"] if command == "run" else []
    status, _, err = cli(command, write_config(llm={"model": str(llama)}), *arguments)
    assert status == 2
    assert "has no end-of-sequence token" in err
    assert not (tmp_path / "run" / "surrogate").exists()


def test_a_padding_token_outside_of_the_model_is_one_line(llama: Path, write_config: Config, cli: Cli) -> None:
    changed(llama / "config.json", pad_token_id=999)
    status, _, err = cli("validate", write_config(llm={"model": str(llama)}))
    assert status == 2
    assert "cannot be loaded: Padding_idx must be within num_embeddings" in err


def saved_adapter(folder: Path, model: Path, targets: list[str], **changes: Any) -> Path:
    base = load_model(str(model))
    attach_lora(base, r=2, alpha=4, dropout=0, target_modules=targets, seed=0).save_pretrained(str(folder))
    changed(folder / "adapter_config.json", **changes)
    return folder


def test_an_adapter_of_the_model_fits_and_its_base_is_compared_by_name(tiny_llm: Path, tmp_path: Path) -> None:
    adapter = saved_adapter(tmp_path / "adapter", tiny_llm, ["q_proj", "v_proj", "lm_head", "embed_tokens"])
    name = str(tiny_llm)
    attach_empty_adapter(load_model(name, empty=True), adapter)
    load_adapter(load_model(name), adapter)
    assert checks.compare_base(adapter_base(adapter), name=name) == []
    changed(adapter / "adapter_config.json", base_model_name_or_path="org/Other", init_lora_weights="pissa")
    attach_empty_adapter(load_model(name, empty=True), adapter)
    (warning,) = checks.compare_base(adapter_base(adapter), name=name)
    assert "llm.adapter was trained on org/Other" in warning


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"num_hidden_layers": 3}, r"the LLM has no place for base_model\.model\.model\.layers\.2\..* and 3 more"),
        ({"num_hidden_layers": 1}, r"it lacks base_model\.model\.model\.layers\.1\..* and 3 more"),
        ({"hidden_size": 8}, r"another shape than the LLM's has base_model\.model\.model\.layers\.0\."),
    ],
)
def test_an_adapter_of_another_model_is_refused_by_what_does_not_fit(
    tiny_llm: Path, tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = LlamaConfig.from_pretrained(tiny_llm, head_dim=4, **config)
    other = made(LlamaForCausalLM, settings, tmp_path / "other", tiny_llm)
    adapter = saved_adapter(tmp_path / "adapter", other, ["q_proj", "v_proj"])
    with pytest.raises(ModelError, match=f"does not go with the LLM: .*{said}"):
        attach_empty_adapter(load_model(str(tiny_llm), empty=True), adapter)
    with pytest.raises(ModelError, match="does not go with the LLM"):
        load_adapter(load_model(str(tiny_llm)), adapter)


def test_an_adapter_of_another_family_is_refused(
    gpt2: Path, tiny_llm: Path, write_config: Config, cli: Cli, tmp_path: Path
) -> None:
    adapter = saved_adapter(tmp_path / "adapter", gpt2, ["c_attn"])
    status, _, err = cli("validate", write_config(llm={"adapter": str(adapter)}))
    assert status == 2
    assert f"The adapter {adapter} does not go with the LLM" in err


def test_titles_that_are_one_after_the_cut_are_counted(tiny_llm: Path) -> None:
    titles: dict[int | str, str] = {1: "Garden Hose, Red", 2: "Garden Hose, Blue", 3: "Alien", 4: "Alien", 5: "Brazil"}

    def warnings(most: int) -> list[str]:
        made = prompter(tiny_llm, titles, max_title_tokens=most)
        return checks.cut_alike(made, list(titles), checks.shown_titles(made, list(titles)))

    (warning,) = warnings(13)
    assert warning == (
        "4 of 5 items share with another item what the LLM is shown of their title, 2 of them the whole title;"
        " raise llm.prompt.max_title_tokens, which is 13"
    )
    assert warnings(14) == []  # equal whole titles are the data stage's to tell


@pytest.mark.slow
def test_titles_cut_alike_are_told_by_validate_and_kept_for_the_report(
    write_config: Config, cli: Cli, tmp_path: Path
) -> None:
    path = write_config()
    settings = ["--set", "llm.prompt.max_title_tokens=4"]
    said = "30 of 30 items share with another item what the LLM is shown of their title, 2 of them the whole title"
    status, _, err = cli("validate", path, *settings)
    assert status == 0
    assert said in err
    status, _, err = cli("run", path, "--run-dir", tmp_path / "run", "--until", "effort", *settings)
    assert status == 0
    manifest = json.loads((tmp_path / "run" / "effort" / "manifest.json").read_text())
    assert [said in warning for warning in manifest["warnings"]] == [True]
    assert said in err.replace("\n", " ")


@pytest.mark.parametrize("visible", [None, 1, 2, 8])
def test_each_process_has_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch, visible: int | None) -> None:
    from dealrec.config.files import parse

    training = {"processes": 2, "batch_size": 8, "micro_batch_size": 4}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: visible is not None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible or 0)
    feasibility.check_processes(parse({"warmstart": training}, base=Path.cwd()))  # there is no warm start
    for section, data in (("finetune", {}), ("warmstart", {"warm_share": 0.5})):
        config = parse({section: training, "data": data}, base=Path.cwd())
        if visible == 1:
            with pytest.raises(ConfigError, match=f"{section}.processes is 2, but there are 1 GPUs. .*most 1"):
                feasibility.check_processes(config)
        else:
            feasibility.check_processes(config)


def test_a_model_of_the_hub_is_looked_at_in_the_cache(
    llama: Path, write_config: Config, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    repository = tmp_path / "hub" / "models--org--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(llama, repository / "snapshots" / ("0" * 40))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    path = write_config(llm={"model": "org/tiny"})
    assert cli("validate", path)[0] == 0
    status, _, err = cli("validate", path, "--set", "llm.lora.target_modules=[c_attn]")
    assert status == 2
    assert "No LoRA can be attached to c_attn" in err
