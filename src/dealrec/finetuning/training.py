"""Fine-tuning on the transformers Trainer."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from dealrec.effort.batching import Encoded, collate
from dealrec.errors import NonFinite


class _Samples(Dataset[Encoded]):
    def __init__(self, samples: Sequence[Encoded]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Encoded:
        return self.samples[index]


class _AfterStep(TrainerCallback):
    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call

    def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
        self.call()


def finetune(
    model: Any,
    samples: Sequence[Encoded],
    *,
    pad_id: int,
    scratch: Path,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    micro_batch_size: int,
    seed: int,
    after_step: Callable[[], None] = lambda: None,
) -> float:
    """Train the model's learnable parameters in place with AdamW; the mean training loss.

    samples: prompt and completion; only the completion's tokens count. scratch: a folder for the Trainer's own
    files. batch_size: samples per step, gathered from forward passes over micro_batch_size each. Order and
    dropout follow from `seed`. after_step: called after each optimiser step. Raises NonFinite if the loss diverges.
    """
    if batch_size % micro_batch_size:
        raise ValueError(f"micro_batch_size {micro_batch_size} must divide batch_size {batch_size}")
    arguments = TrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=epochs,
        learning_rate=learning_rate,
        per_device_train_batch_size=micro_batch_size,
        gradient_accumulation_steps=batch_size // micro_batch_size,
        lr_scheduler_type="linear",
        seed=seed,
        data_seed=seed,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=_Samples(samples),
        data_collator=lambda rows: collate(rows, pad_id=pad_id),
        callbacks=[_AfterStep(after_step)],
    )
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, where results belong
    loss = float(trainer.train().training_loss)
    if not torch.isfinite(torch.tensor(loss)):
        raise NonFinite("finetune: the training loss is NaN or infinite", "Lower finetune.learning_rate.")
    return loss
