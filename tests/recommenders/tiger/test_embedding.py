"""Sentence embeddings of titles: pooled as the encoder's folder says, whatever the batches."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

from dealrec.errors import ModelError
from dealrec.recommenders.files import check_encoder, encoder_files
from dealrec.recommenders.tiger import embed_texts
from dealrec.recommenders.tiger.files import load_text_encoder

TEXTS = ["a", "b a c a b", "", "c c", "a b c a b c a b"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT over three words."""
    folder = tmp_path_factory.mktemp("encoder")
    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(folder)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    BertModel(BertConfig(vocab_size=7, **sizes, initializer_range=1.0)).save_pretrained(folder)
    return folder


def with_modules(folder: Path, *, pooling: str, out: Path, transformer: str = "") -> Path:
    """The encoder as sentence-transformers 2 wrote it: the model, and what pools its states in a folder of its own."""
    shutil.copytree(folder, out / transformer)
    kind = "sentence_transformers.models."
    modules = [{"idx": 0, "name": "0", "path": transformer, "type": f"{kind}Transformer"}]
    modules += [{"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{kind}Pooling"}]
    (out / "modules.json").write_text(json.dumps(modules))
    (out / transformer / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 6}))
    modes = {f"pooling_mode_{name}": name == pooling for name in ("cls_token", "mean_tokens", "max_tokens")}
    (out / "1_Pooling").mkdir()
    (out / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 8, **modes}))
    return out


def states(folder: Path, text: str, *, max_tokens: int) -> Tensor:
    """Of the tokens of one text alone: [T, 8]."""
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        found: Tensor = model(torch.tensor([tokenizer.encode(text, truncation=True, max_length=max_tokens)]))[0][0]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["cls_token", "mean_tokens", "max_tokens"])
@pytest.mark.parametrize("transformer", ["", "0_Transformer"])
def test_states_are_pooled_as_the_folder_says(folder: Path, tmp_path: Path, pooling: str, transformer: str) -> None:
    said: list[str] = []
    made = with_modules(folder, pooling=pooling, out=tmp_path / "encoder", transformer=transformer)
    check_encoder(made, setting="tiger.text_encoder")
    embeddings = embed_texts(load_text_encoder(str(made), warn=said.append), TEXTS)
    for text, row in zip(TEXTS, embeddings, strict=True):
        tokens = states(folder, text, max_tokens=6)
        pooled = {"cls_token": tokens[0], "mean_tokens": tokens.mean(0), "max_tokens": tokens.amax(0)}[pooling]
        torch.testing.assert_close(row, pooled / pooled.norm(), atol=1e-5, rtol=1e-5)
    assert said == []


def test_without_modules_the_mean_is_taken_and_said_to_be(folder: Path) -> None:
    said: list[str] = []
    embeddings = embed_texts(load_text_encoder(str(folder), warn=said.append), TEXTS)
    for text, row in zip(TEXTS, embeddings, strict=True):
        mean = states(folder, text, max_tokens=256).mean(0)
        torch.testing.assert_close(row, mean / mean.norm(), atol=1e-5, rtol=1e-5)
    (warning,) = said
    assert "has no modules.json" in warning
    assert "averaged" in warning


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_batches_do_not_matter(folder: Path, batch_size: int) -> None:
    encoder = load_text_encoder(str(folder))
    torch.testing.assert_close(
        embed_texts(encoder, TEXTS, batch_size=batch_size), embed_texts(encoder, TEXTS), atol=1e-5, rtol=1e-5
    )


def test_a_long_text_is_cut_where_the_folder_says(folder: Path, tmp_path: Path) -> None:
    made = with_modules(folder, pooling="mean_tokens", out=tmp_path / "encoder")
    one, other = embed_texts(load_text_encoder(str(made)), ["a b c a", "a b c a a b"])  # four words and the two ends
    torch.testing.assert_close(one, other)


def test_no_texts_no_embeddings(folder: Path) -> None:
    assert len(embed_texts(load_text_encoder(str(folder)), [])) == 0


def test_how_it_pools_is_among_the_files_that_count(folder: Path, tmp_path: Path) -> None:
    made = with_modules(folder, pooling="mean_tokens", out=tmp_path / "encoder")
    names = [path.relative_to(made).as_posix() for path in encoder_files(made)]
    assert {"config.json", "model.safetensors", "modules.json", "1_Pooling/config.json"} <= set(names)
    assert len(names) == len(set(names))
    assert [path.name for path in encoder_files(folder)] == sorted(path.name for path in folder.iterdir())


def test_a_folder_without_an_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="text encoder"):
        load_text_encoder(str(tmp_path))
    with pytest.raises(ModelError, match=r"has no config\.json"):
        check_encoder(tmp_path, setting="tiger.text_encoder")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "modules.json cannot be read"),
        ('{"type": "x"}', "modules.json cannot be read"),
        ('[{"idx": 0, "type": "modeling.Pickled", "path": ""}]', "code that comes with the model"),
        ('[{"idx": 0, "type": "sentence_transformers.models.Dense", "path": "2_Dense"}]', "is a pickle"),
    ],
)
def test_modules_that_cannot_be_trusted_are_refused(folder: Path, tmp_path: Path, content: str, message: str) -> None:
    made = with_modules(folder, pooling="mean_tokens", out=tmp_path / "encoder")
    (made / "2_Dense").mkdir()
    (made / "2_Dense" / "pytorch_model.bin").write_bytes(b"")
    (made / "modules.json").write_text(content)
    for reading in (lambda: load_text_encoder(str(made)), lambda: check_encoder(made, setting="tiger.text_encoder")):
        with pytest.raises(ModelError, match=message):
            reading()


@pytest.mark.parametrize("transformer", ["", "0_Transformer"])
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("1_Pooling/config.json", b"version https://git-lfs.github.com/spec/v1\n", "is a Git-LFS pointer"),
        ("1_Pooling/config.json", b"", "is empty"),
        ("2_Dense/model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "is a Git-LFS pointer"),
        ("2_Dense/model.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{}", "is no whole safetensors file"),
        ("sentence_bert_config.json", b"{", "is not valid JSON"),
        ("1_Pooling", None, "modules.json names 1_Pooling, which is not there"),
    ],
)
def test_every_part_of_an_encoder_is_looked_at_before_it_is_needed(
    folder: Path, tmp_path: Path, transformer: str, name: str, content: bytes | None, said: str
) -> None:
    made = with_modules(folder, pooling="mean_tokens", out=tmp_path / "encoder", transformer=transformer)
    modules = json.loads((made / "modules.json").read_text())
    kinds = {"2_Dense": "Dense", "3_Normalize": "Normalize"}  # the last leaves no folder
    modules += [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (made / "modules.json").write_text(json.dumps(modules))
    (made / "2_Dense").mkdir()
    check_encoder(made, setting="tiger.text_encoder")
    if content is None:
        shutil.rmtree(made / name)
    else:
        (made / (transformer if name.startswith("sentence_") else "") / name).write_bytes(content)
    with pytest.raises(ModelError, match=said):
        check_encoder(made, setting="tiger.text_encoder")
