"""axolotl: JSON Lines of `input_output` segments, and a file for `axolotl train`.

Segments are tokenised one by one and nothing is added, so begin and end are segments of their own. Rows with input_ids,
attention_mask and labels it trains on as they are.
"""

from pathlib import Path
from typing import Any

from dealrec.engine.json_lines import write_jsonl
from dealrec.exporting.handover import Handover
from dealrec.exporting.training import (
    common_settings,
    copy_start,
    lora_targets,
    note_what_differs,
    trains_adapter,
    write_yaml,
)
from dealrec.sequences import Sample

CONFIG, DATA = "axolotl.yaml", "train.jsonl"
COMMENT = f"In this folder: axolotl train {CONFIG}\nbf16: true on a GPU that has it."


def write(handover: Handover, folder: Path) -> str:
    """Write data and config; the command that trains."""
    handover.refuse("messages", stack="axolotl")
    model, adapter = copy_start(handover, folder)
    data: dict[str, Any] = {"path": DATA, "ds_type": "json"}
    if handover.form == "tokens":
        write_jsonl(folder / DATA, handover.token_rows(mask=True))
    else:
        write_jsonl(folder / DATA, ({"segments": segments(handover, sample)} for sample in handover.samples))
        data["type"] = "input_output"
        handover.compare("axolotl", lambda sample: handover.pieces(*_texts(handover, sample)))
    settings: dict[str, Any] = {
        "base_model": model,
        "revision_of_model": handover.config.llm.revision,
        "datasets": [data],
        "dataset_prepared_path": "prepared",
        "dataset_num_proc": 1,  # each further one imports axolotl before it tokenises
        "shuffle_merged_datasets": False,
        "val_set_size": 0.0,
        "sequence_len": handover.longest,
        "excess_length_strategy": "raise",
        "sample_packing": False,
        "pad_to_sequence_len": False,
        "train_on_inputs": False,
    }
    if trains_adapter(handover):
        lora = handover.config.llm.lora
        settings |= {"adapter": "lora", "lora_model_dir": adapter, "lora_r": lora.r, "lora_alpha": lora.alpha}
        settings |= {"lora_dropout": lora.dropout, "lora_target_modules": lora_targets(handover)}
    if handover.config.llm.quantization:
        settings[f"load_in_{handover.config.llm.quantization}"] = True
        settings["adapter"] = "qlora" if handover.config.llm.quantization == "4bit" else "lora"
    settings |= {
        "num_epochs": handover.config.finetune.epochs,
        "micro_batch_size": handover.config.finetune.micro_batch_size,
        "optimizer": "adamw_torch",
        "lr_scheduler": "linear",
        **common_settings(handover),
    }
    note_what_differs(handover, "axolotl")
    write_yaml(folder / CONFIG, settings, comment=COMMENT)
    return f"axolotl train {CONFIG}"


def segments(handover: Handover, sample: Sample) -> list[dict[str, Any]]:
    """Texts in their order, those that are learnt with label true."""
    prompt, completion = _texts(handover, sample)
    marked = [*((False, text) for text in prompt), *((True, text) for text in completion)]
    return [{"label": label, "text": text} for label, text in marked if text]


def _texts(handover: Handover, sample: Sample) -> tuple[list[str], list[str]]:
    return [handover.begin, sample.prompt], [sample.completion, handover.end]
