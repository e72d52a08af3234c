"""Fine-tuning on the transformers Trainer: adapters or whole models, decoders or encoder-decoders."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import PrinterCallback, TrainerState

from dealrec.devices import compute_device, free_memory
from dealrec.finetuning import checkpoints
from dealrec.finetuning.trainer import (
    TRAIN_LOSS,
    VALID_LOSS,
    AfterStep,
    OneDevice,
    SampleMeanTrainer,
    Samples,
    StopEarly,
    StopOnNonFinite,
    collate_rows,
)
from dealrec.sequences.batches import Encoded


@dataclass(frozen=True)
class Training:
    """How a training went; the steps of its earlier, interrupted calls count as its own.

    loss: mean of the batches' losses over all optimiser steps. steps: optimiser steps taken. validation:
    (step, loss) of each evaluation. best_step: the step whose parameters the model has; None without validation.
    """

    loss: float
    steps: int
    validation: tuple[tuple[int, float], ...]
    best_step: int | None


@contextmanager
def _process_state() -> Iterator[None]:
    """Find the global generators and the current GPU as they were: the Trainer seeds the ones and sets the other."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    gpu = -1 if (device := compute_device()).index is None else device.index  # -1: none
    with torch.random.fork_rng(), torch.cuda.device(gpu):
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)


@_process_state()
def train(
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
    warmup_share: float = 0.0,
    checkpoint_every: int | Literal["epoch"] | None = None,
    validation: Sequence[Encoded] | None = None,
    patience: int | None = None,
    report_to: str | list[str] = "none",
    after_step: Callable[[], None] = lambda: None,
) -> Training:
    """Train the parameters that require grad, in place, with AdamW; the learning rate decays linearly to 0.

    The loss of a sample is the mean cross-entropy over its label tokens (`dealrec.sequences.sequence_losses`), that of
    a batch the mean over its samples. batch_size: samples per optimiser step over all devices, gathered from
    forward passes over micro_batch_size each; the last batch of an epoch may be smaller. warmup_share: share of the
    steps during which the learning rate rises from 0. Order and dropout follow from `seed`.

    scratch: a folder for this training alone. checkpoint_every: optimiser steps, or "epoch", between checkpoints in
    it. A call with the same arguments goes on from the newest complete one and ends with the same parameters as an
    uninterrupted call; checkpoints of other arguments are deleted. The last two are kept, and the best; each holds
    the learnable parameters (of a whole model: all) and twice that for AdamW. They are loaded without unpickling.

    validation: samples whose loss is measured at each checkpoint (after each epoch if checkpoint_every is None);
    the model ends with the parameters of the lowest. patience: training stops after so many evaluations without a
    lower one. report_to: experiment trackers, as in transformers. after_step: called after each step of this call.

    The forward passes compute in the types of the parameters, as those that score and evaluate do, whatever
    accelerate is configured to mix. To trade time for memory, enable gradient checkpointing on the model beforehand.
    The model is moved to `compute_device` and stays there, in training mode; of several GPUs a process takes one.
    Under `accelerate launch` every process calls with the same arguments and its own copy of the model; tested on CPU
    with one process and with two; not on GPUs, DeepSpeed or FSDP.

    Raises NonFinite if a loss is NaN or infinite, ValueError without samples, for sizes that do not divide, and for
    patience without validation.
    """
    if patience is not None and validation is None:
        raise ValueError("patience needs validation samples")
    if not samples:
        raise ValueError("no samples to train on")
    every = "epoch" if checkpoint_every is None and validation is not None else checkpoint_every
    arguments = _arguments(
        scratch,
        every=every,
        num_train_epochs=epochs,
        learning_rate=learning_rate,
        warmup_steps=warmup_share,  # below 1 it is a share
        per_device_train_batch_size=micro_batch_size,
        per_device_eval_batch_size=micro_batch_size,
        eval_strategy="no" if validation is None else _strategy(every),
        load_best_model_at_end=validation is not None,
        report_to=report_to,
        seed=seed,
    )
    arguments.gradient_accumulation_steps = _passes(arguments, batch_size)
    stop_early = [] if patience is None else [StopEarly(patience)]
    digest = None
    if every is not None:
        settings = {
            "epochs": epochs,
            "learning_rate": learning_rate,
            "warmup_share": warmup_share,
            "batch_size": [batch_size, micro_batch_size, arguments.world_size],
            "seed": seed,
            "every": every,
            "patience": patience,
            "computes": [arguments.device.type, str(model.dtype)],
        }
        digest = checkpoints.fingerprint(model, [samples, validation or []], settings)
    trainer = SampleMeanTrainer(
        samples,
        model=model,
        args=arguments,
        eval_dataset=None if validation is None else Samples(validation),
        data_collator=partial(collate_rows, pad_id=pad_id),
        callbacks=[StopOnNonFinite(), *stop_early, AfterStep(after_step)],
        batch_size=batch_size,
        seed=seed,
    )
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, where results belong
    trainer.train(resume_from_checkpoint=None if digest is None else _resume(trainer, scratch, digest, stop_early))
    state = trainer.state
    del trainer
    free_memory()  # the optimiser would live on, in a cycle with its Trainer
    return _summary(state)


def _arguments(scratch: Path, *, every: int | Literal["epoch"] | None, **options: Any) -> OneDevice:
    cpu = compute_device().type == "cpu"
    steps = every if isinstance(every, int) else 1  # without meaning unless steps are counted
    arguments = OneDevice(
        output_dir=str(scratch),
        lr_scheduler_type="linear",
        save_strategy=_strategy(every),
        save_steps=steps,
        eval_steps=steps,
        save_total_limit=2,  # the one before is whole while the newest is written
        logging_strategy="steps",
        logging_steps=1,  # the log is in the checkpoints: the mean loss of a resumed training comes from it
        logging_nan_inf_filter=False,  # it would replace a NaN by the mean of what came before
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=not cpu,
        use_cpu=cpu,
        **options,
    )
    # Computed as the parameters are: accelerate's own settings would have it mixed or compiled unseen.
    arguments.mixed_precision = arguments.torch_compile_backend = "no"
    return arguments


def _strategy(every: int | Literal["epoch"] | None) -> str:
    return "no" if every is None else "epoch" if every == "epoch" else "steps"


def _passes(arguments: OneDevice, batch_size: int) -> int:
    """Forward passes per optimiser step on each device."""
    pass_size = arguments.train_batch_size * arguments.world_size
    if batch_size % pass_size:
        raise ValueError(
            f"batch_size {batch_size} must be a multiple of the {pass_size} samples of a pass on all devices"
        )
    return int(batch_size // pass_size)


def _resume(trainer: SampleMeanTrainer, scratch: Path, digest: str, stop_early: Sequence[StopEarly]) -> str | None:
    """The checkpoint to go on from; from now on the trainer marks its own."""
    wait = trainer.accelerator.wait_for_everyone
    trainer.add_callback(checkpoints.MarkComplete(scratch, digest, wait=wait))
    if trainer.is_world_process_zero():
        checkpoints.discard_others(scratch, digest)
    wait()
    checkpoint = checkpoints.newest(scratch, digest)
    if checkpoint is None:
        return None
    log = TrainerState.load_from_json(str(checkpoint / "trainer_state.json")).log_history
    if any(stop.stops(log) for stop in stop_early):
        trainer.args.num_train_epochs = 0  # killed after its last step: only the best parameters are to be loaded
    return str(checkpoint)


def _summary(state: TrainerState) -> Training:
    losses = [entry[TRAIN_LOSS] for entry in state.log_history if TRAIN_LOSS in entry]
    evaluations = tuple((int(entry["step"]), entry[VALID_LOSS]) for entry in state.log_history if VALID_LOSS in entry)
    best = min(evaluations, key=lambda evaluation: evaluation[1])[0] if evaluations else None
    return Training(sum(losses) / len(losses), state.global_step, evaluations, best)
