"""What a tokenizer's chat template puts around the user's turn."""

import re
from dataclasses import dataclass
from typing import Any

from dealrec.errors import ConfigError

TURN = 'A "b" & c\n{d} \u00e9.'  # a turn that a template which changes turns would change
# What a template takes for today, lest prompts change overnight: a function in the place of the one that it is given.
DATE = {"%d": "26", "%B": "July", "%b": "Jul", "%m": "07", "%Y": "2024", "%y": "24", "%A": "Friday", "%a": "Fri"}
TODAY = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f" | replace('{code}', '{text}')" for code, text in DATE.items())
    + " }}{%- endmacro -%}"
)
MARKER = re.compile(r"<[^\s<>]+>|\[[^\s\[\]]+\]")  # such as <|user|> and [/INST], where they are no added tokens


@dataclass(frozen=True)
class Frame:
    """What stands before the user's turn and after it, up to where the answer begins; the markers of the template."""

    before: str
    after: str
    markers: tuple[str, ...] = ()


def chat_frame(tokenizer: Any) -> Frame:
    """The frame of a conversation that begins with the user. Raises ConfigError for a template that does not do."""
    if not tokenizer.chat_template:
        raise ConfigError(
            "llm.prompt.chat: the LLM's tokenizer has no chat template",
            "Set it to false, and write the markers of the turns, if any, into llm.prompt.template.",
        )
    turn = {"role": "user", "content": TURN}
    text = _rendered(tokenizer, [turn])
    if text.count(TURN) != 1:
        raise ConfigError(
            "llm.prompt.chat: the LLM's chat template does not write the user's turn once and as it is",
            "Set it to false, and write the markers of the turns into llm.prompt.template.",
        )
    before, _, after = text.partition(TURN)
    try:
        longer = _rendered(tokenizer, [turn, {"role": "assistant", "content": TURN}, turn])
    except ConfigError:  # a template of single answers
        longer = text
    return Frame(before, after, tuple(dict.fromkeys(MARKER.findall(longer.replace(TURN, " ")))))


def _rendered(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    """The text up to the answer; a template that can have the LLM think before it is told not to."""
    try:
        template = tokenizer.get_chat_template()
        text: str = tokenizer.apply_chat_template(
            messages,
            chat_template=TODAY * ("strftime_now" in template) + template,
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
    except Exception as error:  # whatever a template raises: it is a program that came with the model
        raise ConfigError(
            f"llm.prompt.chat: the LLM's chat template fails: {next(iter(str(error).splitlines()), 'without a word')}",
            "Set it to false, and write the markers of the turns into llm.prompt.template.",
        ) from error
    return text
