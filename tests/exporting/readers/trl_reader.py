"""In the folder of an export: what `trl sft --config sft.yaml` would train on, as JSON on the last line."""

import json

from trl import SFTTrainer, get_dataset, get_peft_config
from trl.scripts.sft import make_parser

_, arguments, model, data = make_parser().parse_args_and_config(["--config", "sft.yaml"])[:4]
arguments.model_init_kwargs = {"revision": model.model_revision, "dtype": model.dtype}
trainer = SFTTrainer(
    model=model.model_name_or_path,
    args=arguments,
    train_dataset=get_dataset(data)["train"],
    peft_config=get_peft_config(model),
)
rows = trainer.train_dataset
batch = next(iter(trainer.get_train_dataloader()))
assert set(batch) <= {"input_ids", "attention_mask", "labels"}, set(batch)
print(json.dumps([[row["input_ids"], row["labels"]] for row in rows]))
