"""Whether an LLM can do what the settings ask of it, seen from its shapes and its tokenizer: no weight is loaded."""

from collections import Counter
from collections.abc import Sequence
from heapq import nlargest
from typing import Any

from torch import nn

from dealrec.columns import Id
from dealrec.errors import ConfigError, ModelError
from dealrec.recommenders.bigrec.model import text_part
from dealrec.recommenders.bigrec.prompts import Prompter
from dealrec.recommenders.bigrec.rows import positions

ENDS = 3  # tokens of a completion beside its title: the quotes and the end of sequence
POSITION_TABLES = {"wpe", "embed_positions", "position_embeddings", "position_embedding"}  # names that models give them
LONGEST = 100  # titles, the longest by bytes, among which the one with most tokens is looked for
BLOCK = 4096  # titles that are tokenised at a time
LEAST_PROMPT = 16  # tokens that llm.prompt.max_prompt_tokens may be set to at least


def check_tokens(tokenizer: Any, template: str, *, rows: int, name: str) -> None:
    """Raise ModelError where the tokenizer can write a token that the LLM's embeddings, of so many rows, have not.

    Added tokens without a role may lie outside: titles are defused, so that they occur only in the template.
    """
    for role in ("eos_token", "bos_token", "pad_token", "unk_token"):
        token = getattr(tokenizer, f"{role}_id")
        if token is not None and token >= rows:
            raise _vocabulary_error(f"The {role} {getattr(tokenizer, role)!r} of {name!r}", token, rows)
    tokens = tokenizer.encode(template)
    if not tokens:
        raise ModelError(
            f"The tokenizer of {name!r} makes no token of llm.prompt.template", "Check that its vocabulary is there."
        )
    if max(tokens) >= rows:
        raise _vocabulary_error(f"A token of llm.prompt.template by the tokenizer of {name!r}", max(tokens), rows)
    added = tokenizer.added_tokens_decoder
    largest = max((token for token in tokenizer.get_vocab().values() if token not in added), default=0)
    if largest >= rows:
        raise _vocabulary_error(f"The vocabulary of the tokenizer of {name!r}", largest, rows)


def _vocabulary_error(subject: str, token: int, rows: int) -> ModelError:
    return ModelError(
        f"{subject} reaches token {token:,}, and the LLM's embeddings have {rows:,} rows",
        "Take the tokenizer that belongs to the weights, or resize the embeddings (resize_token_embeddings).",
    )


def check_positions(model: Any, prompter: Prompter, *, one_item_tokens: int, max_new_tokens: int) -> list[str]:
    """Warnings of prompts beyond the positions of training; a ConfigError where the LLM has no further positions.

    one_item_tokens: of the longest prompt that shows one item. max_new_tokens: that may be written after it.
    """
    limit, answer = positions(model), max(prompter.max_title_tokens + ENDS, max_new_tokens)
    if limit is None:
        return []
    title = f"max_title_tokens {prompter.max_title_tokens} + {ENDS} (quotes and end)"
    extra = title if prompter.max_title_tokens + ENDS >= max_new_tokens else f"evaluate.max_new_tokens {max_new_tokens}"
    room = limit - answer
    remedy = f"Lower llm.prompt.max_prompt_tokens to {room}"
    if room < LEAST_PROMPT:
        remedy = "Lower llm.prompt.max_title_tokens and evaluate.max_new_tokens, or take an LLM with more positions"
    elif one_item_tokens > room:
        remedy += f" and shorten llm.prompt.template, with which a single item takes {one_item_tokens} tokens"
    sizes = f"llm.prompt.max_prompt_tokens {prompter.max_prompt_tokens} + {extra} are"
    return check_length(model, prompter.max_prompt_tokens + answer, sizes, remedy=remedy)


def check_length(model: Any, tokens: int, sizes: str, *, remedy: str) -> list[str]:
    """Warnings of so many tokens beyond the positions of training; a ConfigError where the LLM has no further ones.

    sizes: in words, which settings come to so many tokens.
    """
    config, limit = model.config.get_text_config(), positions(model)
    if limit is None or tokens <= limit:
        return []
    key = config.attribute_map.get("max_position_embeddings", "max_position_embeddings")
    fault = f"{sizes} above the LLM's {limit:,} positions"
    if has_learnt_positions(model):
        raise ConfigError(f"{fault} ({key})", f"{remedy}.")
    return [f"{fault} of training ({key}); beyond them it reads badly. {remedy}, if texts are so long."]


def has_learnt_positions(model: Any) -> bool:
    """Whether the LLM looks positions up in a table, which ends, as GPT-2 and OPT do; others compute them."""
    part = text_part(model)
    tables = [name for name, module in part.named_modules() if isinstance(module, nn.Embedding)]
    tables += [name for name, _ in part.named_buffers()]  # GPT-J and CodeGen
    return any(name.rpartition(".")[2] in POSITION_TABLES for name in tables)


def compare_base(base: object, *, name: str) -> list[str]:
    """Warn of an adapter that was trained on a model, base, of another name than the LLM's."""
    if not isinstance(base, str) or _base_name(base) == _base_name(name):
        return []
    return [
        f"llm.adapter was trained on {base}, and llm.model is {name}: it fits by its shapes, but is it the same model?"
    ]


def _base_name(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()


def shown_titles(prompter: Prompter, items: Sequence[Id]) -> list[str]:
    """The titles of a whole catalogue as they are shown."""
    parts = (items[start : start + BLOCK] for start in range(0, len(items), BLOCK))
    return [title for part in parts for title in prompter.bare_titles(part)]


def longest_single(prompter: Prompter, items: Sequence[Id], titles: Sequence[str]) -> int:
    """Tokens of the longest prompt that shows one item. Raises ConfigError if it does not fit.

    titles: as they are shown.
    """
    longest = nlargest(LONGEST, zip(items, titles, strict=True), key=lambda pair: len(pair[1].encode()))
    return max((len(prompter.encode_prompt([item])) for item, _ in longest), default=0)


def cut_alike(prompter: Prompter, items: Sequence[Id], titles: Sequence[str]) -> list[str]:
    """Warn of items whose titles differ, and are one once they are cut: nothing can tell which of them is meant."""
    full_titles = [prompter.whole_title(item) for item in items]
    alike, equal = (sum(count for count in Counter(group).values() if count > 1) for group in (titles, full_titles))
    if alike == equal:
        return []
    of_them = f", {equal:,} of them the whole title" if equal else ""
    return [
        f"{alike:,} of {len(items):,} items share with another item what the LLM is shown of their title{of_them};"
        f" raise llm.prompt.max_title_tokens, which is {prompter.max_title_tokens}"
    ]
