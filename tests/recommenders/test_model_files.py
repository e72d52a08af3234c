"""Folders of models and adapters that are not whole are refused, with the name of the file and the remedy."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dealrec.errors import ModelError
from dealrec.recommenders.bigrec.model import attach_lora, load_llm
from dealrec.recommenders.files import check_adapter_directory, check_directory, check_hub, hub_commit, read_shapes

Damage = Callable[[Path], object]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def model(tiny_llm: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llm, tmp_path / "llm"))


@pytest.fixture
def sharded(tiny_llm: Path, tmp_path: Path) -> Path:
    model, tokenizer = load_llm(str(tiny_llm))
    folder = tmp_path / "sharded"
    model.save_pretrained(folder, max_shard_size="8KB")
    tokenizer.save_pretrained(folder)
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


@pytest.fixture
def adapter(tiny_llm: Path, tmp_path: Path) -> Path:
    lora = attach_lora(load_llm(str(tiny_llm))[0], r=2, alpha=4, dropout=0, target_modules=["q_proj"], seed=0)
    lora.save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


def written(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def cut(name: str, size: int) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def without(key: str) -> Damage:
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        del config[key]
        (folder / "config.json").write_text(json.dumps(config))

    return damage


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        *(
            (written(name, POINTER), f"{re.escape(name)} is a Git-LFS pointer.*git lfs pull")
            for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", WEIGHTS)
        ),
        (written("tokenizer.model", POINTER), r"tokenizer\.model is a Git-LFS pointer"),
        *((written(name, b""), f"{re.escape(name)} is empty") for name in ("config.json", "tokenizer.json")),
        (cut("tokenizer.json", 100), r"tokenizer\.json is not valid JSON"),
        (written("tokenizer.json", b"{}"), r"tokenizer\.json holds no tokenizer"),
        (written("config.json", b"[]"), r"config\.json holds no JSON object"),
        (written("config.json", b"\xff\xfe\xfa"), r"config\.json is not valid JSON"),
        (without("model_type"), r"config\.json names no model_type"),
        (written(WEIGHTS, b""), r"model\.safetensors is no whole.*has 0"),
        (cut(WEIGHTS, 5), r"model\.safetensors is no whole safetensors file"),
        (cut(WEIGHTS, 100), r"model\.safetensors is no whole.* it has 92\b"),
        (cut(WEIGHTS, -1), r"model\.safetensors is no whole.*has [\d,]+ bytes, and its header means"),
        (lambda folder: (folder / WEIGHTS).open("ab").write(b"0"), "is no whole safetensors file: it has"),
        (written(WEIGHTS, bytes(64)), "its header cannot be read"),
        (written(WEIGHTS, (9).to_bytes(8, "little") + b'{"a": {}}'), "its header cannot be read"),
        (pickled, "no weights.*pickles are never opened"),
        (lambda folder: (folder / WEIGHTS).rename(folder / "consolidated.safetensors"), "no weights"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer"),
        (lambda folder: (folder / "config.json").unlink(), r"has no config\.json"),
        (shutil.rmtree, "no model directory"),
    ],
)
@pytest.mark.parametrize("setting", ["llm.model", "tiger.text_encoder"])
def test_a_model_that_is_not_whole_is_refused_by_the_file_s_name(
    model: Path, damage: Damage, said: str, setting: str
) -> None:
    check_directory(model, setting=setting)
    damage(model)
    with pytest.raises(ModelError, match=said):
        check_directory(model, setting=setting)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda shards, _: shards[1].unlink(), r"has no model-00002-of-\d+\.safetensors, which .*index\.json names"),
        (lambda shards, _: [shard.unlink() for shard in shards[1:]], r"model-00002\S+ \(and \d more\)"),
        (lambda shards, _: shards[1].write_bytes(POINTER), r"model-00002\S+ is a Git-LFS pointer"),
        (lambda shards, _: cut(shards[1].name, -3)(shards[1].parent), r"model-00002\S+ is no whole"),
        (lambda _, index: index.write_bytes(POINTER), "index.json is a Git-LFS pointer"),
        (lambda _, index: index.write_text("{}"), "names no files"),
        (lambda _, index: index.unlink(), "no weights"),
    ],
)
def test_of_sharded_weights_every_file_of_the_index_is_looked_at(
    sharded: Path, damage: Callable[[list[Path], Path], object], said: str
) -> None:
    check_directory(sharded)
    damage(sorted(sharded.glob("model-*.safetensors")), sharded / INDEX)
    with pytest.raises(ModelError, match=said):
        check_directory(sharded)


def test_what_transformers_would_not_read_may_be_anything(model: Path) -> None:
    for name in ("notes.json", "pytorch_model.bin", "consolidated.safetensors", "README.md"):
        (model / name).write_bytes(b"")
    (model / "model.onnx").write_bytes(POINTER)
    check_directory(model)


def test_a_header_gives_the_shapes(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(0)}, tmp_path / "x.safetensors", metadata={"format": "pt"})
    assert read_shapes(tmp_path / "x.safetensors") == {"a": (2, 3), "b": (0,)}


def test_an_adapter_s_folder_and_a_model_s_are_told_apart(model: Path, adapter: Path, tmp_path: Path) -> None:
    check_adapter_directory(adapter)
    base = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    with pytest.raises(ModelError, match=f"is a PEFT adapter of {base}.*llm.model {base} and llm.adapter this folder"):
        check_directory(adapter)
    with pytest.raises(ModelError, match=r"holds a whole model.*llm\.model"):
        check_adapter_directory(model)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(adapter / name, model)
    with pytest.raises(ModelError, match=r"holds an adapter beside the model.*llm\.adapter"):
        check_directory(model)
    with pytest.raises(
        ModelError, match=r"has no adapter_config\.json and no adapter_model\.safetensors\. Check llm\.adapter"
    ):
        check_adapter_directory(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut("adapter_model.safetensors", -1), "is no whole safetensors file"),
        (written("adapter_model.safetensors", POINTER), r"adapter_model\.safetensors is a Git-LFS pointer"),
        (written("adapter_config.json", b""), r"adapter_config\.json is empty"),
        (written("adapter_config.json", b"{}"), "names no peft_type"),
        (lambda folder: (folder / "adapter_config.json").unlink(), r"has no adapter_config\.json"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), r"has no adapter_model\.safetensors\. Check"),
        (
            lambda folder: (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin"),
            "adapter_model.bin is a pickle, which is never opened.*once with PEFT",
        ),
    ],
)
def test_an_adapter_that_is_not_whole_is_refused(adapter: Path, damage: Damage, said: str) -> None:
    damage(adapter)
    with pytest.raises(ModelError, match=said):
        check_adapter_directory(adapter)


@pytest.fixture
def cached(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The snapshot of org/tiny in a cache of the hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    repository = tmp_path / "hub" / "models--org--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    return model.rename(repository / "snapshots" / ("0" * 40))


def test_a_model_in_the_cache_of_the_hub_is_looked_at_there(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    assert check_hub("org/tiny", setting="llm.model") == cached
    weights = (cached / WEIGHTS).read_bytes()
    (cached / WEIGHTS).unlink()
    assert check_hub("org/tiny", setting="llm.model") is None  # the hub will give what is not there yet
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="no weights"):
        check_hub("org/tiny", setting="llm.model")
    (cached / WEIGHTS).write_bytes(weights[:-1])
    for offline in (True, False):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
        with pytest.raises(ModelError, match="is no whole safetensors file"):
            check_hub("org/tiny", setting="llm.model")


@pytest.mark.parametrize("damage", [written("tokenizer.json", b"{}"), cut(WEIGHTS, 100)])
def test_loading_refuses_what_is_damaged_too(model: Path, damage: Damage) -> None:
    damage(model)
    with pytest.raises(ModelError, match=r"holds no tokenizer|no whole"):
        load_llm(str(model))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("eos_token_id", "x", "field 'eos_token_id': TypeError: Field 'eos_token_id' with value 'x'"),
        ("hidden_size", "8", "field 'hidden_size': TypeError: .* expected int, got str"),
        ("pad_token_id", 9999, "Padding_idx must be within num_embeddings"),
    ],
)
def test_a_config_with_an_impossible_value_is_one_line(model: Path, name: str, value: object, said: str) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {name: value}))
    with pytest.raises(ModelError, match=f"cannot be loaded: .*{said}"):
        load_llm(str(model))


def test_an_end_of_sequence_of_the_config_alone_is_read_by_nothing(model: Path) -> None:
    """Generation ends at the tokenizer's, which `check_tokens` holds to the embeddings."""
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"eos_token_id": [1, 5000]}))
    llm, tokenizer = load_llm(str(model))
    assert llm.generation_config.eos_token_id is None
    assert tokenizer.eos_token_id == 1


def test_weights_that_are_not_all_there_are_refused_and_not_drawn_at_random(model: Path) -> None:
    config: dict[str, Any] = json.loads((model / "config.json").read_text())
    for changed, said in (
        ({"num_hidden_layers": 3}, r"lack 9 of the model's parameters, the first model\.layers\.2\.input_layernorm"),
        ({"tie_word_embeddings": False}, r"lack 1 of the model's parameters, the first lm_head\.weight"),
        ({"intermediate_size": 33}, r"down_proj\.weight has the shape \[16, 32\], and by config\.json \[16, 33\]"),
    ):
        (model / "config.json").write_text(json.dumps(config | changed))
        with pytest.raises(ModelError, match=said):
            load_llm(str(model))


def test_a_branch_of_the_hub_is_the_commit_that_the_cache_holds(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the branch goes at the hub, which is asked only for what the cache has not."""
    asked: list[str] = []

    def download(name: str, file: str, *, revision: str | None) -> str:
        asked.append(f"{name}/{file}@{revision}")
        if name == "org/other":
            return str(cached.with_name("1" * 40) / file)
        raise OSError("no connection\nand more")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert hub_commit("org/tiny", setting="llm.model") == cached.name
    assert asked == []
    assert hub_commit("org/other", setting="llm.model", revision="v2") == "1" * 40
    with pytest.raises(ModelError, match=r"llm\.model 'org/gone' is no folder here, .*: no connection\. Name a folder"):
        hub_commit("org/gone", setting="llm.model")
    assert asked == ["org/other/config.json@v2", "org/gone/config.json@None"]
