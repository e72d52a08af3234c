"""What a stack is handed: samples as text and as tokens, the tokenizer, the settings, and where training starts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from dealrec.config import Config
from dealrec.errors import ConfigError
from dealrec.recommenders.bigrec.prompts import begin_of, closing_length, encode_open
from dealrec.sequences import IGNORED, Encoded, Sample

Form = Literal["text", "messages", "tokens"]
Reading = Callable[[Sample], Encoded]  # a sample as the tokens that a stack makes of it


@dataclass
class Handover:
    """Samples for a stack, and what stack functions want said about them.

    tokenizer: the LLM's; None for a recommender without text. start: folder of the adapter, or of the whole model,
    that fine-tuning starts from; None: the LLM as it is. form: text, messages or tokens. notes: what to tell the user.
    differing: samples that the stack reads as other tokens or another mask than our own fine-tuning.
    """

    config: Config
    form: Form
    samples: Sequence[Sample]
    tokenizer: Any = None
    start: Path | None = None
    notes: list[str] = field(default_factory=list)
    differing: int = 0

    @property
    def longest(self) -> int:
        """Tokens of the longest sample."""
        return max(len(sample.tokens.input_ids) for sample in self.samples)

    @property
    def end(self) -> str:
        """The end-of-sequence token as text."""
        return str(self.tokenizer.eos_token)

    @cached_property
    def begin(self) -> str:
        """What the tokenizer puts before a prompt, as text: a begin-of-sequence token, or nothing.

        Nothing too where it would, but our own prompts begin without: a chat template that writes none.
        """
        tokens = encode_open(self.tokenizer, "", closing=closing_length(self.tokenizer))
        begun = all(sample.tokens.input_ids[: len(tokens)] == tokens for sample in self.samples)
        return begin_of(self.tokenizer) if begun else ""

    @cached_property
    def around(self) -> tuple[str, str]:
        """What stands before and after the user's turn in every prompt: of a chat its markers, else only the begin."""
        first = next(iter(self.samples), None)
        if first is None or first.turn is None:
            return self.begin, ""
        before, _, after = first.prompt.partition(first.turn)
        return self.begin + before, after

    def pieces(self, prompt: Sequence[str], completion: Sequence[str]) -> Encoded:
        """Tokens of texts that are tokenised one by one, nothing added; labels on those of the completion."""

        def ids(texts: Sequence[str]) -> list[int]:
            return [i for text in texts if text for i in self.tokenizer.encode(text, add_special_tokens=False)]

        prompt_ids, completion_ids = ids(prompt), ids(completion)
        return Encoded([*prompt_ids, *completion_ids], [IGNORED] * len(prompt_ids) + completion_ids)

    def compare(self, stack: str, reading: Reading) -> None:
        """Count the samples that the stack reads as something else, and note it with the remedy."""
        self.differing = sum(reading(sample) != sample.tokens for sample in self.samples)
        if self.differing:
            self.notes.append(
                f"{stack} makes other tokens or another loss mask of {self.differing:,} of {len(self.samples):,}"
                " samples than effort and dealrec's own fine-tuning; with --form tokens it reads exactly theirs"
            )

    def token_rows(self, *, mask: bool = False) -> list[dict[str, list[int]]]:
        """Samples as input_ids and labels; mask: and an attention_mask of ones."""
        return [
            {
                "input_ids": sample.tokens.input_ids,
                **({"attention_mask": [1] * len(sample.tokens.input_ids)} if mask else {}),
                "labels": sample.tokens.labels,
            }
            for sample in self.samples
        ]

    def rows(self) -> list[dict[str, Any]]:
        """Samples in the form that is wanted, for readers that take any."""
        if self.form == "tokens":
            return self.token_rows()
        if self.form == "messages":
            return [{"messages": messages(sample)} for sample in self.samples]
        return [{"prompt": sample.prompt, "completion": sample.completion} for sample in self.samples]

    def refuse(self, form: Form, *, stack: str) -> None:
        """Raise ConfigError if that form is wanted, which the stack cannot be given."""
        if self.form == form:
            raise ConfigError(f"There is no form {form!r} for {stack}", "Choose --form text or --form tokens.")


def messages(sample: Sample) -> list[dict[str, str]]:
    """A sample as a conversation of two turns."""
    turns = (("user", sample.prompt if sample.turn is None else sample.turn), ("assistant", sample.completion))
    return [{"role": role, "content": content} for role, content in turns]
