"""LLaMA-Factory: Alpaca JSON, its dataset_info.json, and a file for `llamafactory-cli train`.

Its template `empty` adds nothing, neither a begin nor an end, so both stand in the texts. The two texts are tokenised
one by one, as ours are. A first {{idx}} in a prompt is replaced by 0, so samples are compared. Tokens come as a saved
data set.
"""

import json
from pathlib import Path
from typing import Any

from dealrec.exporting.handover import Handover
from dealrec.exporting.hf_datasets import save_tokens
from dealrec.exporting.training import (
    copy_start,
    lora_targets,
    note_what_differs,
    trainer_settings,
    trains_adapter,
    write_yaml,
)
from dealrec.sequences import Sample
from dealrec.sequences.batches import Encoded

CONFIG, DATA, INFO, TOKENS, NAME = "train.yaml", "train.json", "dataset_info.json", "tokens", "dealrec"
COMMENT = f"In this folder: llamafactory-cli train {CONFIG}\nbf16: true on a GPU that has it."


def write(handover: Handover, folder: Path) -> str:
    """Write data and config; the command that trains."""
    handover.refuse("messages", stack="LLaMA-Factory")
    model, adapter = copy_start(handover, folder)
    settings: dict[str, Any] = {
        "model_name_or_path": model,
        "model_revision": handover.config.llm.revision,
        "adapter_name_or_path": adapter,
        "stage": "sft",
        "do_train": True,
        "dataset": NAME,  # asked for even where tokens are read
        "template": "empty",
    }
    if handover.form == "tokens":
        save_tokens(handover, folder / TOKENS)
        settings["tokenized_path"] = TOKENS
    else:
        rows = [json.dumps(row, ensure_ascii=False) for row in alpaca(handover)]
        (folder / DATA).write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")
        columns = {"prompt": "instruction", "query": "input", "response": "output"}
        info = {NAME: {"file_name": DATA, "formatting": "alpaca", "columns": columns}}
        (folder / INFO).write_text(json.dumps(info, indent=2) + "\n")
        # Of a shorter cutoff it would give prompt and completion their shares, and round.
        settings |= {"dataset_dir": ".", "cutoff_len": 2 * handover.longest + 1}
        handover.compare("LLaMA-Factory", lambda sample: with_empty_template(handover, sample))
    if trains_adapter(handover):
        lora = handover.config.llm.lora
        settings |= {"finetuning_type": "lora", "lora_rank": lora.r, "lora_alpha": lora.alpha}
        settings |= {"lora_dropout": lora.dropout, "lora_target": ",".join(lora_targets(handover))}
    else:
        settings["finetuning_type"] = "full"
    if handover.config.llm.quantization:
        settings["quantization_bit"] = int(handover.config.llm.quantization.removesuffix("bit"))
    note_what_differs(handover, "LLaMA-Factory")
    write_yaml(folder / CONFIG, settings | trainer_settings(handover), comment=COMMENT)
    return f"llamafactory-cli train {CONFIG}"


def alpaca(handover: Handover) -> list[dict[str, str]]:
    """Instruction and output, begin and end included; no further column, as it would train on some of them."""
    return [
        {"instruction": handover.begin + sample.prompt, "input": "", "output": sample.completion + handover.end}
        for sample in handover.samples
    ]


def with_empty_template(handover: Handover, sample: Sample) -> Encoded:
    """A sample as LLaMA-Factory tokenises it."""
    prompt = (handover.begin + sample.prompt).replace("{{idx}}", "0", 1)
    return handover.pieces([prompt], [sample.completion + handover.end])
