"""The tokens of semantic ids in an LLM's vocabulary."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dealrec.errors import ModelError


@dataclass(frozen=True)
class ItemTokens:
    """How the LLM spells each item of the catalogue. tokens: [n, L], int64, no two rows alike; texts: the same."""

    tokens: Tensor
    texts: list[list[str]]


def texts_of_codes(codes: Tensor) -> list[list[str]]:
    """The texts of the tokens for codes [n, L]; levels share none.

    >>> texts_of_codes(torch.tensor([[4, 0]]))
    [['<a_4>', '<b_0>']]
    """
    return [[f"<{chr(ord('a') + level)}_{code}>" for level, code in enumerate(row)] for row in codes.tolist()]


def add_tokens(model: Any, tokenizer: Any, texts: Sequence[Sequence[str]], *, seed: int | None) -> ItemTokens:
    """Have the tokenizer know each text as one token, and the model embed it.

    texts: of each item, as many of each. Those that the tokenizer has as one token stay what they are. seed: rows of
    new ones are drawn about the mean of the others, by each dimension's deviation; None: the model has them already.
    Raises ModelError where a text cannot become one token.
    """
    distinct = list(dict.fromkeys(text for item in texts for text in item))
    known = tokenizer.get_vocab()
    new = [text for text in distinct if text not in known]
    before = min(len(tokenizer), model.get_input_embeddings().weight.shape[0])
    tokenizer.add_tokens(new)
    ids = dict(zip(distinct, tokenizer.convert_tokens_to_ids(distinct), strict=True))
    for text in distinct[:1] + distinct[-1:]:
        if tokenizer.encode(text, add_special_tokens=False) != [ids[text]]:
            raise ModelError(f"The tokenizer does not read {text!r} as one token", "Choose other texts for the items.")
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if seed is not None and new:
        rows = torch.tensor([ids[text] for text in new])
        for layer in {id(each): each for each in (model.get_input_embeddings(), output_layer(model))}.values():
            _draw_rows(layer.weight, rows, before=before, seed=seed)
    tokens = torch.tensor([[ids[text] for text in item] for item in texts], dtype=torch.int64)
    return ItemTokens(tokens, [list(item) for item in texts])


def output_layer(model: Any) -> Any:
    """What gives each token its logit."""
    return model.get_output_embeddings()


def _draw_rows(weight: nn.Parameter, rows: Tensor, *, before: int, seed: int) -> None:
    if weight.device.type == "meta":
        return
    generator = torch.Generator().manual_seed(seed)
    old = weight.detach()[:before].float()
    drawn = torch.randn(len(rows), weight.shape[1], generator=generator).to(old.device)
    values = old.mean(0) + old.std(0) * drawn
    with torch.no_grad():
        weight[rows.to(weight.device)] = values.to(weight.dtype)


def trained_rows(model: Any, ids: ItemTokens) -> dict[str, list[int]]:
    """Which rows of which modules learn beside an adapter: those of the items' tokens, in and out.

    An output layer that is tied to the embeddings learns with them.
    """
    rows = ids.tokens.unique().tolist()
    inner, outer = model.get_input_embeddings(), output_layer(model)
    layers = [inner] if inner.weight is outer.weight else [inner, outer]
    names = {id(module): name for name, module in model.named_modules()}
    return {names[id(layer)].rpartition(".")[2]: rows for layer in layers}
