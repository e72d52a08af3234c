"""Sentence embeddings of titles: the mean of the real tokens' states, whatever the batches."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from dealrec.errors import ModelError
from dealrec.recommenders.tiger import embed_texts
from dealrec.recommenders.tiger.files import load_text_encoder

TEXTS = ["a", "b a c a b", "", "c c", "a b c a b c a b"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT over three words, saved as all-MiniLM-L6-v2 is."""
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


@pytest.fixture(scope="module")
def encoder(folder: Path) -> tuple[Any, Any]:
    return load_text_encoder(str(folder))


def test_the_mean_over_a_text_s_own_tokens_at_length_one(encoder: tuple[Any, Any]) -> None:
    model, tokenizer = encoder
    found = embed_texts(model, tokenizer, TEXTS)
    for text, row in zip(TEXTS, found, strict=True):
        with torch.inference_mode():
            mean = model(torch.tensor([tokenizer.encode(text)])).last_hidden_state[0].mean(0)
        torch.testing.assert_close(row, mean / mean.norm(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 9, 10_000])
def test_batches_do_not_matter(encoder: tuple[Any, Any], batch_tokens: int) -> None:
    torch.testing.assert_close(
        embed_texts(*encoder, TEXTS, batch_tokens=batch_tokens), embed_texts(*encoder, TEXTS), atol=1e-5, rtol=1e-5
    )


def test_a_long_text_is_cut(encoder: tuple[Any, Any]) -> None:
    one, other = embed_texts(*encoder, ["a b c", "a b a a a a"], max_tokens=4)
    torch.testing.assert_close(one, other)


def test_no_texts_no_embeddings(encoder: tuple[Any, Any]) -> None:
    assert len(embed_texts(*encoder, [])) == 0


def test_a_folder_without_an_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="text encoder"):
        load_text_encoder(str(tmp_path))
