"""Training rows of the user's own as tokens, with labels on what is learnt."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from dealrec.columns import COMPLETION, INPUT_IDS, LABELS, MESSAGES, PROMPT, ROW_ID
from dealrec.errors import DataError, ModelError
from dealrec.recommenders.bigrec.prompts import closing_length, encode_open
from dealrec.recommenders.protocol import EncodedRow
from dealrec.sequences.batches import Encoded
from dealrec.sequences.losses import IGNORED

Longer = Literal["cut", "refuse"]


def encode_row(tokenizer: Any, row: Mapping[str, Any], *, limit: int | None, longer: Longer) -> EncodedRow:
    """A row as tokens, at most `limit` of them.

    Prompt and completion are tokenised one by one, with what the tokenizer puts before a text and the end of sequence
    after it; labels are on the completion and the end. Messages go through the chat template of the tokenizer; labels
    are on what it writes for the turns that are learnt. input_ids and labels stay as they are. longer: cut takes the
    end away, as trainers do, or of a row that would lose every label all but what leads to the last; refuse is
    DataError, and so is a row in which nothing can be learnt: the first token follows from no other.
    """
    encoded = _encoded(tokenizer, row)
    if all(label == IGNORED for label in encoded.labels[1:]):
        raise DataError(
            f"Row {row[ROW_ID]!r} has no token to learn after its first",
            "Take it out, or see what the chat template writes for its turns.",
        )
    length = len(encoded.input_ids)
    if limit is None or length <= limit:
        return EncodedRow(encoded)
    if longer == "refuse":
        raise DataError(
            f"Row {row[ROW_ID]!r} has {length:,} tokens, above the {limit:,} of llm.rows.max_tokens or the LLM's"
            " positions",
            "Shorten it, or set llm.rows.longer to cut.",
        )
    last = max(place for place, label in enumerate(encoded.labels) if label != IGNORED)
    learnt = any(label != IGNORED for label in encoded.labels[1:limit])
    part = slice(0, limit) if learnt else slice(max(0, last + 1 - limit), last + 1)
    return EncodedRow(Encoded(encoded.input_ids[part], encoded.labels[part]), cut=True)


def _encoded(tokenizer: Any, row: Mapping[str, Any]) -> Encoded:
    if row[INPUT_IDS] is not None:
        return Encoded(list(row[INPUT_IDS]), list(row[LABELS]))
    if row[MESSAGES] is not None:
        return _conversation(tokenizer, row[MESSAGES], str(row[ROW_ID]))
    prompt = encode_open(tokenizer, row[PROMPT], closing=closing_length(tokenizer))
    completion = [*tokenizer.encode(row[COMPLETION], add_special_tokens=False), tokenizer.eos_token_id]
    return Encoded([*prompt, *completion], [IGNORED] * len(prompt) + completion)


def _conversation(tokenizer: Any, turns: Sequence[Mapping[str, Any]], name: str) -> Encoded:
    """Of each turn that is learnt, what the template writes between the prompt for it and its end."""
    if not tokenizer.chat_template:
        raise ModelError(
            "The rows are conversations, and the LLM's tokenizer has no chat template", "Give an LLM that has one."
        )
    ids = _templated(tokenizer, turns, ahead=False)
    labels = [IGNORED] * len(ids)
    for place, turn in enumerate(turns):
        if not turn["learnt"]:
            continue
        start = len(_templated(tokenizer, turns[:place], ahead=True)) if place else 0
        whole = _templated(tokenizer, turns[: place + 1], ahead=False)
        if ids[: len(whole)] != whole:
            raise ModelError(
                f"The LLM's chat template writes the turns of row {name!r} otherwise when others follow",
                "Give the rows as prompt and completion, or as tokens.",
            )
        labels[start : len(whole)] = ids[start : len(whole)]
    return Encoded(ids, labels)


def _templated(tokenizer: Any, turns: Sequence[Mapping[str, Any]], *, ahead: bool) -> list[int]:
    """Tokens of the turns; ahead: with what the template puts before an answer."""
    messages = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ahead)
    tokens: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return tokens


def positions(model: Any) -> int | None:
    """The tokens that the LLM was made to read; None where its config does not say."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None
