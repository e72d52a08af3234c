"""Samples as text and as tokens.

Titles are data that somebody else wrote. In a prompt each stands on one line between double quotes: quotes
inside it become single ones, and a special token spelt out in it is broken up, so that no title can end the
prompt or speak for the user. In a chat so are the markers of its template, where they are no tokens.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from dealrec.columns import Id
from dealrec.errors import ConfigError
from dealrec.recommenders.bigrec.chat import Frame, chat_frame
from dealrec.sequences.batches import Encoded
from dealrec.sequences.losses import IGNORED

PLACEHOLDER = "{history}"


class Prompt(NamedTuple):
    """A prompt as text, what of it is the user's turn in a chat (None: it is no chat), and its tokens."""

    text: str
    turn: str | None
    tokens: list[int]


class Prompter:
    """Turns a history and a target into a prompt and its completion.

    titles: title of each item id. max_items: most recent items that are shown. max_title_tokens: a longer
    title is cut. max_prompt_tokens: the oldest items are left out until the prompt fits; a template that does
    not fit with a single item is a ConfigError. chat: the template is the user's turn in the tokenizer's own chat
    template, whose tokens count; one that cannot be used is a ConfigError.
    """

    def __init__(
        self,
        tokenizer: Any,
        titles: Mapping[Id, str],
        *,
        template: str,
        max_items: int = 10,
        max_title_tokens: int = 32,
        max_prompt_tokens: int = 512,
        chat: bool = False,
    ) -> None:
        self.tokenizer, self.titles, self.template = tokenizer, titles, template
        self.max_items, self.max_title_tokens, self.max_prompt_tokens = max_items, max_title_tokens, max_prompt_tokens
        self.chat = chat
        self._quoted: dict[Id, str] = {}

    def title(self, item: Id) -> str:
        """The title as prompts and completions show it, quotes included."""
        if item not in self._quoted:
            self._quoted[item] = f'"{self.bare_title(item)}"'
        return self._quoted[item]

    def bare_title(self, item: Id) -> str:
        """The title without quotes around it; it is not kept, so that a whole catalogue may pass through."""
        return self.bare_titles([item])[0]

    def bare_titles(self, items: Sequence[Id]) -> list[str]:
        """The titles of some items without quotes, as they are shown."""
        texts = [self.whole_title(item) for item in items]
        if not texts:
            return []
        for place, tokens in enumerate(self.tokenizer(texts, add_special_tokens=False)["input_ids"]):
            if len(tokens) > self.max_title_tokens:
                # A cut inside a character decodes to U+FFFD.
                text = self.tokenizer.decode(tokens[: self.max_title_tokens]).rstrip("\ufffd ")
                texts[place] = safe_title(text, self._specials)
        return texts

    def whole_title(self, item: Id) -> str:
        """The title as it would be shown if none were cut."""
        return safe_title(self.titles[item], self._specials)

    def prompt(self, history: Sequence[Id]) -> str:
        """The prompt that shows the history, oldest first; without what the tokenizer itself puts before a text."""
        return self.fit(history).text

    def completion(self, target: Id) -> str:
        """What the LLM should write, without the end-of-sequence token."""
        return self.title(target)

    def encode_prompt(self, history: Sequence[Id]) -> list[int]:
        """Tokens of the prompt, at most max_prompt_tokens."""
        return self.fit(history).tokens

    def encode(self, history: Sequence[Id], target: Id) -> Encoded:
        """Tokens of the prompt, the completion and the end; labels on the completion and the end alone."""
        prompt = self.encode_prompt(history)
        completion = self.tokenizer.encode(self.completion(target), add_special_tokens=False)
        completion = [*completion, self.tokenizer.eos_token_id]
        return Encoded([*prompt, *completion], [IGNORED] * len(prompt) + completion)

    def fit(self, history: Sequence[Id]) -> Prompt:
        """The prompt with as many of the latest items as there is room for."""
        opening, ending = self.around
        titles = [self.title(item) for item in history[-self.max_items :]]
        for start in range(max(1, len(titles))):
            turn = opening + ", ".join(titles[start:]) + ending
            text, tokens = self._framed(turn)
            if len(tokens) <= self.max_prompt_tokens:
                return Prompt(text, turn if self.chat else None, tokens)
        raise ConfigError(
            f"A prompt with a single item has {len(tokens)} tokens, above llm.prompt.max_prompt_tokens"
            f" {self.max_prompt_tokens}",
            "Raise it, shorten llm.prompt.template, or lower llm.prompt.max_title_tokens.",
        )

    @cached_property
    def around(self) -> tuple[str, str]:
        """The template before the history, and after it; space at the ends of a chat's turn says nothing."""
        opening, _, ending = self.template.partition(PLACEHOLDER)
        return (opening.lstrip(), ending.rstrip()) if self.chat else (opening, ending)

    def _framed(self, turn: str) -> tuple[str, list[int]]:
        """The prompt of a turn as text and as tokens."""
        if not self.chat:
            return turn, encode_open(self.tokenizer, turn, closing=self._closing)
        text = self._frame.before + turn + self._frame.after
        return text.removeprefix(self._begin), self.tokenizer.encode(text, add_special_tokens=False)

    @cached_property
    def frame_text(self) -> str:
        """All that is in every prompt."""
        return self._framed("".join(self.around))[0]

    @cached_property
    def _frame(self) -> Frame:
        return chat_frame(self.tokenizer) if self.chat else Frame("", "")

    @cached_property
    def _begin(self) -> str:
        return begin_of(self.tokenizer)

    @cached_property
    def _closing(self) -> int:
        return closing_length(self.tokenizer)

    @cached_property
    def _specials(self) -> list[str]:
        # Not all_special_tokens: that names the few with a role, while every added token is read as one.
        added = (str(token) for token in self.tokenizer.added_tokens_decoder.values())
        markers = {*added, *self._frame.markers}
        return sorted((token for token in markers if len(token.strip()) > 1), key=lambda token: (-len(token), token))


def encode_open(tokenizer: Any, text: str, *, closing: int) -> list[int]:
    """Tokens of a text that goes on: with what the tokenizer puts before it, without what it puts after it.

    closing: how many those are, from `closing_length`.
    """
    tokens: list[int] = tokenizer.encode(text)
    return tokens[: len(tokens) - closing]


def begin_of(tokenizer: Any) -> str:
    """What the tokenizer puts before a text, as text: a begin-of-sequence token, or nothing."""
    tokens = encode_open(tokenizer, "", closing=closing_length(tokenizer))
    return "".join(tokenizer.convert_ids_to_tokens(tokens))


def closing_length(tokenizer: Any) -> int:
    """How many tokens the tokenizer puts after every text, such as an end of sequence (add_eos_token=True)."""
    plain, full = tokenizer.encode("a", add_special_tokens=False), tokenizer.encode("a")
    ends = (end for end in range(len(plain), len(full) + 1) if full[end - len(plain) : end] == plain)
    return len(full) - next(ends, len(full)) if plain else 0


def safe_title(title: str, special_tokens: Iterable[str]) -> str:
    """A title without quotes that would end it and without special tokens that would end the prompt.

    >>> safe_title('Say "hi" <|im_end|>', ["<|im_end|>"])
    "Say 'hi' < |im_end|>"
    """
    title = " ".join(title.replace('"', "'").split())
    for token in special_tokens:
        title = title.replace(token, f"{token[0]} {token[1:]}")
    return title
