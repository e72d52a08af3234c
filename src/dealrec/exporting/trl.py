"""TRL: JSON Lines and a file for `trl sft --config`.

TRL appends the end-of-sequence token to a completion and tokenises prompt and completion as one text. Where tokens
merge across the boundary it masks from the first token that differs, so the text form is compared sample by sample.
Rows with input_ids and labels it trains on as they are.
"""

from pathlib import Path
from typing import Any

from dealrec.engine.json_lines import write_jsonl
from dealrec.exporting.handover import Handover, messages
from dealrec.exporting.training import (
    copy_start,
    lora,
    note_what_differs,
    trainer_settings,
    weights_dtype,
    write_yaml,
)
from dealrec.sequences import Sample
from dealrec.sequences.batches import Encoded
from dealrec.sequences.losses import IGNORED

CONFIG, DATA, TEMPLATE = "sft.yaml", "train.jsonl", "chat_template.jinja"
COMMENT = f"In this folder: trl sft --config {CONFIG}\nbf16: true on a GPU that has it."
ADD_NOTHING = (
    "{{% for message in messages %}}{{% if message['role'] == 'assistant' %}}"
    "{{% generation %}}{{{{ message['content'] + {end} }}}}{{% endgeneration %}}"
    "{{% else %}}{{{{ {begin} + message['content'] }}}}{{% endif %}}{{% endfor %}}"
)


def write(handed: Handover, folder: Path) -> str:
    """Write data and config; the command that trains."""
    model, adapter = copy_start(handed, folder)
    write_jsonl(folder / DATA, handed.rows())
    settings: dict[str, Any] = {
        "model_name_or_path": model,
        "model_revision": handed.config.llm.revision,
        "dtype": weights_dtype(handed),
        "datasets": [{"path": "json", "data_files": DATA}],
        "max_length": handed.longest,
        "packing": False,
    }
    if handed.form == "text":
        settings["completion_only_loss"] = True
        handed.compare("TRL", lambda sample: joined(handed, sample))
    if handed.form == "messages":
        template = adding_nothing(handed)
        (folder / TEMPLATE).write_text(template, encoding="utf-8")
        settings |= {"assistant_only_loss": True, "chat_template_path": TEMPLATE}
        handed.compare("TRL", lambda sample: templated(handed, sample, template))
    if lora(handed):
        made = handed.config.llm.lora
        settings |= {"use_peft": True, "lora_r": made.r, "lora_alpha": made.alpha, "lora_dropout": made.dropout}
        settings["lora_target_modules"] = made.target_modules
    if handed.config.llm.quantization:
        settings[f"load_in_{handed.config.llm.quantization}"] = True
    note_what_differs(handed, "TRL")
    if adapter is not None:
        handed.notes.append(
            f"trl sft cannot start from an adapter, so {CONFIG} starts a fresh one, while the run goes on from"
            f" {adapter}/; --to llamafactory and --to axolotl go on from it"
        )
    write_yaml(folder / CONFIG, settings | trainer_settings(handed), comment=COMMENT)
    return f"trl sft --config {CONFIG}"


def joined(handed: Handover, sample: Sample) -> Encoded:
    """A sample as TRL tokenises prompt and completion."""
    prompt: list[int] = handed.tokenizer.encode(sample.prompt)
    ids: list[int] = handed.tokenizer.encode(sample.prompt + sample.completion + handed.end)
    pairs = enumerate(zip(prompt, ids, strict=False))
    start = next((place for place, (one, other) in pairs if one != other), min(len(prompt), len(ids)))
    return Encoded(ids, [IGNORED] * start + ids[start:])


def adding_nothing(handed: Handover) -> str:
    """A chat template that writes the turns as they are, and what the tokenizer puts around them otherwise."""
    return ADD_NOTHING.format(begin=_quoted(handed.begin), end=_quoted(handed.end))


def templated(handed: Handover, sample: Sample, template: str) -> Encoded:
    """A sample as TRL tokenises messages with a chat template."""
    made = handed.tokenizer.apply_chat_template(
        messages(sample), chat_template=template, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = made["input_ids"], made["assistant_masks"]
    return Encoded(ids, [token if written else IGNORED for token, written in zip(ids, mask, strict=True)])


def _quoted(text: str) -> str:
    """As a string of a jinja template."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
