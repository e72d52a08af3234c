"""In the folder of an export: what `axolotl train axolotl.yaml` would train on, as JSON on the last line."""

import json

from axolotl.cli.config import load_cfg
from axolotl.common.datasets import load_datasets

if __name__ == "__main__":  # axolotl's workers import this file again
    rows = load_datasets(cfg=load_cfg("axolotl.yaml")).train_dataset
    print(json.dumps([[row["input_ids"], row["labels"]] for row in rows]))
