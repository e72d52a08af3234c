"""In the folder of an export: what `llamafactory-cli train train.yaml` would train on, as JSON on the last line."""

import json
from pathlib import Path

import yaml
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer

model, data, training, _, _ = get_train_args(yaml.safe_load(Path("train.yaml").read_text()))
loaded = load_tokenizer(model)
template = get_template_and_fix_tokenizer(loaded["tokenizer"], data)
rows = get_dataset(template, model, data, training, stage="sft", **loaded)["train_dataset"]
print(json.dumps([[row["input_ids"], row["labels"]] for row in rows]))
