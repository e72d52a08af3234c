"""axolotl: JSON Lines of `input_output` segments, and a file for `axolotl train`.

Segments are tokenised one by one and nothing is added, so begin and end are segments of their own. Rows with input_ids,
attention_mask and labels it trains on as they are.
"""

from pathlib import Path
from typing import Any

from dealrec.engine.json_lines import write_jsonl
from dealrec.exporting.handover import Handover
from dealrec.exporting.training import common_settings, copy_start, lora, note_what_differs, write_yaml
from dealrec.sequences import Sample

CONFIG, DATA = "axolotl.yaml", "train.jsonl"
COMMENT = f"In this folder: axolotl train {CONFIG}\nbf16: true on a GPU that has it."


def write(handed: Handover, folder: Path) -> str:
    """Write data and config; the command that trains."""
    handed.refuse("messages", stack="axolotl")
    model, adapter = copy_start(handed, folder)
    data: dict[str, Any] = {"path": DATA, "ds_type": "json"}
    if handed.form == "tokens":
        write_jsonl(folder / DATA, handed.token_rows(mask=True))
    else:
        write_jsonl(folder / DATA, ({"segments": segments(handed, sample)} for sample in handed.samples))
        data["type"] = "input_output"
        handed.compare("axolotl", lambda sample: handed.pieces(*_texts(handed, sample)))
    settings: dict[str, Any] = {
        "base_model": model,
        "revision_of_model": handed.config.llm.revision,
        "datasets": [data],
        "dataset_prepared_path": "prepared",
        "dataset_num_proc": 1,  # each further one imports axolotl before it tokenises
        "shuffle_merged_datasets": False,
        "val_set_size": 0.0,
        "sequence_len": handed.longest,
        "excess_length_strategy": "raise",
        "sample_packing": False,
        "pad_to_sequence_len": False,
        "train_on_inputs": False,
    }
    if lora(handed):
        made = handed.config.llm.lora
        settings |= {"adapter": "lora", "lora_model_dir": adapter, "lora_r": made.r, "lora_alpha": made.alpha}
        settings |= {"lora_dropout": made.dropout, "lora_target_modules": made.target_modules}
    if handed.config.llm.quantization:
        settings[f"load_in_{handed.config.llm.quantization}"] = True
        settings["adapter"] = "qlora" if handed.config.llm.quantization == "4bit" else "lora"
    settings |= {
        "num_epochs": handed.config.finetune.epochs,
        "micro_batch_size": handed.config.finetune.micro_batch_size,
        "optimizer": "adamw_torch",
        "lr_scheduler": "linear",
        **common_settings(handed),
    }
    note_what_differs(handed, "axolotl")
    write_yaml(folder / CONFIG, settings, comment=COMMENT)
    return f"axolotl train {CONFIG}"


def segments(handed: Handover, sample: Sample) -> list[dict[str, Any]]:
    """Texts in their order, those that are learnt with label true."""
    prompt, completion = _texts(handed, sample)
    marked = [*((False, text) for text in prompt), *((True, text) for text in completion)]
    return [{"label": label, "text": text} for label, text in marked if text]


def _texts(handed: Handover, sample: Sample) -> tuple[list[str], list[str]]:
    return [handed.begin, sample.prompt], [sample.completion, handed.end]
