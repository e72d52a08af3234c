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
    lora_targets,
    note_what_differs,
    trainer_settings,
    trains_adapter,
    weights_dtype,
    write_yaml,
)
from dealrec.sequences import Sample
from dealrec.sequences.batches import Encoded
from dealrec.sequences.losses import IGNORED

CONFIG, DATA, TEMPLATE = "sft.yaml", "train.jsonl", "chat_template.jinja"
COMMENT = f"In this folder: trl sft --config {CONFIG}\nbf16: true on a GPU that has it."
# A chat template that writes the turns as they are, and around them what our own prompts and completions have there.
TURNS = (
    "{{% for message in messages %}}{{% if message['role'] == 'assistant' %}}"
    "{{% generation %}}{{{{ message['content'] + {end} }}}}{{% endgeneration %}}"
    "{{% else %}}{{{{ {before} + message['content'] + {after} }}}}{{% endif %}}{{% endfor %}}"
)


def write(handover: Handover, folder: Path) -> str:
    """Write data and config; the command that trains."""
    model, adapter = copy_start(handover, folder)
    write_jsonl(folder / DATA, handover.rows())
    settings: dict[str, Any] = {
        "model_name_or_path": model,
        "model_revision": handover.config.llm.revision,
        "dtype": weights_dtype(handover),
        "datasets": [{"path": "json", "data_files": DATA}],
        "max_length": handover.longest,
        "packing": False,
    }
    if handover.form == "text":
        settings["completion_only_loss"] = True
        handover.compare("TRL", lambda sample: joined(handover, sample))
    if handover.form == "messages":
        before, after = map(_quoted, handover.around)
        template = TURNS.format(before=before, after=after, end=_quoted(handover.end))
        (folder / TEMPLATE).write_text(template, encoding="utf-8")
        settings |= {"assistant_only_loss": True, "chat_template_path": TEMPLATE}
        handover.compare("TRL", lambda sample: templated(handover, sample, template))
    if trains_adapter(handover):
        lora = handover.config.llm.lora
        settings |= {"use_peft": True, "lora_r": lora.r, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
        settings["lora_target_modules"] = lora_targets(handover)
    if handover.config.llm.quantization:
        settings[f"load_in_{handover.config.llm.quantization}"] = True
    note_what_differs(handover, "TRL")
    if adapter is not None:
        handover.notes.append(
            f"trl sft cannot start from an adapter, so {CONFIG} starts a fresh one, while the run goes on from"
            f" {adapter}/; --to llamafactory and --to axolotl go on from it"
        )
    write_yaml(folder / CONFIG, settings | trainer_settings(handover), comment=COMMENT)
    return f"trl sft --config {CONFIG}"


def joined(handover: Handover, sample: Sample) -> Encoded:
    """A sample as TRL tokenises prompt and completion."""
    prompt: list[int] = handover.tokenizer.encode(sample.prompt)
    ids: list[int] = handover.tokenizer.encode(sample.prompt + sample.completion + handover.end)
    pairs = enumerate(zip(prompt, ids, strict=False))
    start = next((place for place, (alone, joint) in pairs if alone != joint), min(len(prompt), len(ids)))
    return Encoded(ids, [IGNORED] * start + ids[start:])


def templated(handover: Handover, sample: Sample, template: str) -> Encoded:
    """A sample as TRL tokenises messages with a chat template."""
    encoding = handover.tokenizer.apply_chat_template(
        messages(sample), chat_template=template, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = encoding["input_ids"], encoding["assistant_masks"]
    return Encoded(ids, [token if learnt else IGNORED for token, learnt in zip(ids, mask, strict=True)])


def _quoted(text: str) -> str:
    """As a string of a jinja template."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
