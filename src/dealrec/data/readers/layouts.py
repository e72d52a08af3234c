"""What a training row of the user's own is trained on: one of the layouts that trainers read, as one of three.

A row is a prompt and a completion, a conversation, or tokens. Layouts as TRL, LLaMA-Factory (Alpaca, ShareGPT),
axolotl, ms-swift, verl and OpenOneRec document them; any other by a template of the user's.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from dealrec.columns import COMPLETION, INPUT_IDS, LABELS, MESSAGES, PROMPT

IGNORED = -100  # a label that is not learnt
ASSISTANT = "assistant"
_ROLES = {"human": "user", "gpt": ASSISTANT, "bot": ASSISTANT, "model": ASSISTANT, "observation": "tool"}
TURN = pl.Struct({"role": pl.String, "content": pl.String, "learnt": pl.Boolean})
SCHEMA = {
    PROMPT: pl.String(),
    COMPLETION: pl.String(),
    MESSAGES: pl.List(TURN),
    INPUT_IDS: pl.List(pl.Int64),
    LABELS: pl.List(pl.Int64),
}

Text = dict[str, Any]  # prompt and completion, messages, or input_ids and labels


class RowFault(Exception):
    """What is wrong with a row, and the setting that would mend it."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(cause)
        self.cause, self.remedy = cause, remedy


def absent(row: Mapping[str, Any], name: str, what: str = "") -> RowFault:
    """The fault of a row without a value in a field; where no such field is in it, with those that are."""
    fault = f"has no {what}'{name}'"
    if name in row or name.partition(".")[0] in row:
        return RowFault(fault, "Fill it in, or name the right field in data.columns.")
    return RowFault(f"{fault}; it has: {', '.join(row)}", "Name the right field in data.columns.")


_ABSENT = object()


def field(row: Mapping[str, Any], name: str) -> Any:
    """The value of a field, or of one within others (`metadata.user.id`), also within JSON that is text; None: none."""
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if isinstance(value, str) and value[:1] == "{":
            value = parsed(value)
        value = value.get(part, _ABSENT) if isinstance(value, Mapping) else _ABSENT
        if value is _ABSENT:
            return None
    return value


def parsed(text: str) -> Any:
    """What stands in a text as JSON or as Python writes it; None for neither."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


@dataclass(frozen=True)
class Layout:
    """How rows hold what is trained on. fields: the names that are read; text: what it makes of a row."""

    name: str
    fields: tuple[str, ...]
    text: Callable[[Mapping[str, Any]], Text]


def layout_of(
    names: Collection[str],
    *,
    prompt: str | None = None,
    completion: str | None = None,
    messages: str | None = None,
    input_ids: str | None = None,
    labels: str | None = None,
    templates: tuple[str, str] | None = None,
) -> Layout | None:
    """The layout of rows with fields of these names; None: none that is known.

    The others: as the settings name the fields, or write a prompt and a completion of them; then no other layout is
    looked for.
    """
    if templates:
        return _written(*templates)
    if input_ids or labels:
        return _tokens(input_ids or INPUT_IDS, labels or LABELS)
    if messages:
        return _conversation(messages)
    if prompt or completion:
        return _pair(prompt or PROMPT, completion or COMPLETION)
    known = [
        _tokens(INPUT_IDS, LABELS),
        _conversation(MESSAGES),
        _conversation("conversations"),
        _asked("instruction", "output"),
        _asked("query", "response"),
        _pair(PROMPT, COMPLETION),
        _pair(PROMPT, "response"),
        _reward(PROMPT, "reward_model"),
        _text("segments"),
        _text("text"),
    ]
    return next((layout for layout in known if set(layout.fields[:2]) <= set(names)), None)


def _tokens(ids: str, labels: str) -> Layout:
    def text(row: Mapping[str, Any]) -> Text:
        sides = {INPUT_IDS: _tokens_in(row, ids), LABELS: _tokens_in(row, labels, mask=IGNORED)}
        if len(sides[INPUT_IDS]) != len(sides[LABELS]):
            raise RowFault(
                f"has {len(sides[INPUT_IDS]):,} {ids} and {len(sides[LABELS]):,} {labels}", "Write one label a token."
            )
        if all(label == IGNORED for label in sides[LABELS][1:]):
            raise RowFault(
                f"has no label in '{labels}' after its first token",
                "Leave the row out, or mend its mask.",
            )
        return sides

    return Layout("tokens", (ids, labels), text)


def _tokens_in(row: Mapping[str, Any], name: str, *, mask: int | None = None) -> list[int]:
    """mask: the number that stands where there is none."""
    value = _given(row, name)
    value = parsed(value) if isinstance(value, str) else value
    if not isinstance(value, list) or not all(type(number) is int for number in value):
        raise RowFault(f"has no list of whole numbers in '{name}'", "Write the tokens there, or name the right field.")
    odd = next((number for number in value if not 0 <= number < 2**31 and number != mask), None)
    if odd is not None:
        raise RowFault(f"has {odd} in '{name}', which is no token", "Mend it.")
    return value


def _pair(prompt: str, completion: str) -> Layout:
    def text(row: Mapping[str, Any]) -> Text:
        sides = _given(row, prompt), _given(row, completion)
        if sides == ("", ""):
            raise RowFault(f"has no text in '{prompt}' and '{completion}': nothing of it is learnt", "Leave it out.")
        if isinstance(sides[0], str) and isinstance(sides[1], str):
            return {PROMPT: sides[0], COMPLETION: sides[1]}
        asked = _one_turn("user", sides[0]) if isinstance(sides[0], str) else _turns(sides[0], prompt)
        answered = _one_turn(ASSISTANT, sides[1]) if isinstance(sides[1], str) else _turns(sides[1], completion)
        return _conversation_of(asked, answered, completion)

    return Layout("prompt and completion", (prompt, completion), text)


def _asked(instruction: str, output: str) -> Layout:
    """An instruction, with its input on lines of its own, is what is asked; system and history go before it."""

    def text(row: Mapping[str, Any]) -> Text:
        asked, answered = (_string(row, name) for name in (instruction, output))
        further = _string(row, "input") if row.get("input") else ""
        asked = "\n".join(part for part in (asked, further) if part)
        past, system = row.get("history"), row.get("system")
        past = parsed(past) if isinstance(past, str) else past
        if not system and not (isinstance(past, list) and past and all(isinstance(turn, list) for turn in past)):
            return {PROMPT: asked, COMPLETION: answered}
        turns = _one_turn("system", system) if system else []
        for question, answer in _exchanges(past):
            turns += [*_one_turn("user", question), *_one_turn(ASSISTANT, answer)]
        return _conversation_of([*turns, *_one_turn("user", asked)], _one_turn(ASSISTANT, answered), output)

    return Layout("instruction and answer", (instruction, output, "input", "system", "history"), text)


def _exchanges(past: Any) -> list[list[Any]]:
    """What was asked and answered before, as pairs; of anything else in that field nothing."""
    if not isinstance(past, list) or not all(isinstance(turn, list) for turn in past):
        return []
    if any(len(turn) != 2 for turn in past):
        raise RowFault("has a turn in 'history' that is no question with its answer", "Write pairs there.")
    return past


def _reward(prompt: str, reward: str) -> Layout:
    """Prompts for reinforcement learning as verl has them: what is learnt is the answer that is rewarded."""

    def text(row: Mapping[str, Any]) -> Text:
        answer = field(row, f"{reward}.ground_truth")
        if answer is None:
            raise RowFault(f"has no '{reward}.ground_truth'", "Fill it in, or name the completion in data.columns.")
        answer = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
        return _conversation_of(_turns(_given(row, prompt), prompt), _one_turn(ASSISTANT, answer), reward)

    return Layout("prompt and reward", (prompt, reward), text)


def _text(name: str) -> Layout:
    """A text, or a list of segments of text, that is learnt as a whole."""

    def text(row: Mapping[str, Any]) -> Text:
        value = _given(row, name)
        parts = parsed(value) if isinstance(value, str) and value[:1] == "[" else None
        whole = _content(parts) if parts is not None else value
        if not isinstance(whole, str) or not whole:
            raise RowFault(f"has no text in '{name}'", "Leave it out.")
        return {PROMPT: "", COMPLETION: whole}

    return Layout("text", (name, name), text)


_PLACE = re.compile(r"\{([^{}]+)\}")


def _written(prompt: str, completion: str) -> Layout:
    """By templates of the user's: `{field}` stands for the text of a field, of a list for its items with commas."""

    def text(row: Mapping[str, Any]) -> Text:
        def filled(place: re.Match[str]) -> str:
            value = _given(row, place[1])
            value = parsed(value) if isinstance(value, str) and value[:1] == "[" else value
            return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

        return {PROMPT: _PLACE.sub(filled, prompt), COMPLETION: _PLACE.sub(filled, completion)}

    names = tuple(dict.fromkeys(_PLACE.findall(prompt + completion)))
    return Layout("template", names, text)


def _content(value: Any) -> Any:
    """The text of a message, of one in parts (`[{"type": "text", "text": ...}]`) joined."""
    if not isinstance(value, list):
        return value
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in value]
    return "".join(map(str, texts)) if all(isinstance(text, str) for text in texts) else None


def _conversation(name: str) -> Layout:
    def text(row: Mapping[str, Any]) -> Text:
        system = row.get("system")
        first = _one_turn("system", system) if isinstance(system, str) and system else []
        return _conversation_of([], first + _turns(_given(row, name), name), name)

    return Layout("conversation", (name, name, "system"), text)


def _one_turn(role: str, content: str) -> list[Mapping[str, Any]]:
    return [{"role": role, "content": content}]


def _turns(value: Any, name: str) -> list[Mapping[str, Any]]:
    value = parsed(value) if isinstance(value, str) else value
    if not isinstance(value, list) or not value or not all(isinstance(turn, Mapping) for turn in value):
        raise RowFault(f"has no list of messages in '{name}'", "Write role and content of each, or from and value.")
    return value


def _conversation_of(asked: list[Mapping[str, Any]], answered: list[Mapping[str, Any]], name: str) -> Text:
    """What the assistant says in `answered` is learnt, but for a turn of weight 0."""
    turns = []
    for turn, counts in [*((turn, False) for turn in asked), *((turn, True) for turn in answered)]:
        role = str(turn.get("role", turn.get("from")))
        content = _content(turn.get("content", turn.get("value")))
        if not isinstance(content, str):
            raise RowFault(f"has a message in '{name}' without text", "Write its content as text.")
        role = _ROLES.get(role, role)
        learnt = counts and role == ASSISTANT and turn.get("weight", 1) != 0
        turns.append({"role": role, "content": content, "learnt": learnt})
    if not any(turn["learnt"] for turn in turns):
        raise RowFault(f"has nothing in '{name}' that the assistant says: nothing of it is learnt", "Leave it out.")
    return {MESSAGES: turns}


def _string(row: Mapping[str, Any], name: str) -> str:
    value = _given(row, name)
    if not isinstance(value, str):
        raise RowFault(f"has no text in '{name}', but {value!r:.40}", "Write it as text.")
    return value


def _given(row: Mapping[str, Any], name: str) -> Any:
    value = field(row, name)
    if value is None:
        raise absent(row, name)
    return value


def learnt_text(text: Text) -> str:
    """What is learnt of a row, in words; of tokens their numbers."""
    if LABELS in text:
        return " ".join(str(label) for label in text[LABELS] if label != IGNORED)
    if MESSAGES in text:
        return "\n".join(turn["content"] for turn in text[MESSAGES] if turn["learnt"])
    return str(text[COMPLETION])
