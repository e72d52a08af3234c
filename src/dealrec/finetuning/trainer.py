"""The transformers Trainer with the project's loss, order of samples, and end of training."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from dealrec.errors import NonFinite
from dealrec.sequences import sequence_losses
from dealrec.sequences.batches import Encoded, collate

TRAIN_LOSS = "loss"  # as the Trainer calls them in its log
VALID_LOSS = "eval_loss"


COUNTED = "counted"  # of a batch: whether each sample takes part in the loss
FILLING = -1  # the index of a sample that only fills up the last passes of an epoch

Row = tuple[Encoded, bool]  # a sample, and whether it counts


class Samples(Dataset[Row]):
    """Encoded samples as the Trainer takes them."""

    def __init__(self, samples: Sequence[Encoded]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Row:
        return self.samples[index], index != FILLING


def collate_rows(rows: Sequence[Row], *, pad_id: int) -> dict[str, Tensor]:
    """The batch of `collate`, and which of its samples count."""
    samples, counted = zip(*rows, strict=True)
    return {**collate(samples, pad_id=pad_id), COUNTED: torch.tensor(counted)}


class OneDevice(TrainingArguments):
    """Of a process that computes on one device, whatever else there is.

    With several GPUs in sight the Trainer would take them all at once by DataParallel, which multiplies the batch size
    and hides the model from its loss.
    """

    @property
    def n_gpu(self) -> int:
        """GPUs of this process: none or one."""
        return min(1, int(super().n_gpu))


class SampleMeanTrainer(Trainer):
    """Minimises the mean over a batch's samples of the mean over a sample's label tokens.

    Effort is the gradient norm of that loss of a sample, and the test loss is its mean, so it is what training
    should lower; the Trainer's own mean over tokens would weigh long titles more. The mean is over all samples of
    an optimiser step, on all devices, however they fall into forward passes.
    """

    def __init__(self, samples: Sequence[Encoded], *, batch_size: int, seed: int, **trainer: Any) -> None:
        super().__init__(train_dataset=Samples(samples), **trainer)
        self.model_accepts_loss_kwargs = True  # the loss is normalised here, so the Trainer must not divide it again
        self.lengths = [len(sample.input_ids) + len(sample.labels) for sample in samples]
        self.batch_size = batch_size
        self.order_seed = seed

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """The forward passes of one optimiser step, and the number of their samples on all devices."""
        batches, _tokens = super().get_batch_samples(epoch_iterator, num_batches, device)
        count = torch.tensor(sum(int(batch[COUNTED].sum()) for batch in batches), device=device)
        return batches, self.accelerator.reduce(count, reduction="sum")

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """In training this pass's share of the step's mean loss, in evaluation the mean loss of its samples."""
        losses = sequence_losses(model, inputs) * inputs[COUNTED]
        if model.training and num_items_in_batch is not None:
            # Gradients are averaged over the processes, hence the factor.
            loss = losses.sum() * self.accelerator.num_processes / num_items_in_batch
        else:
            loss = losses.sum() / inputs[COUNTED].sum().clamp_min(1)  # what only fills up is dropped once gathered
        return (loss, {}) if return_outputs else loss

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:  # noqa: ARG002 (the Trainer's signature)
        steps = -(-len(self.lengths) // self.batch_size)  # of an epoch
        return _Order(
            self.lengths,
            batch_size=self.batch_size,
            pass_size=self._pass_size(self.args.train_batch_size),
            seed=self.order_seed,
            # Read off the steps, since set_epoch does not reach the sampler where several processes resume.
            epoch=lambda: self.state.global_step // steps,
        )

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        """In order; the last passes are filled up here, as accelerate would with samples that then count twice."""
        count = len(eval_dataset)
        return [*range(count), *[FILLING] * (-count % self._pass_size(self.args.eval_batch_size))]

    def _pass_size(self, batch_size: int) -> int:
        """Samples that a number of samples has to be a multiple of: those of a pass on all devices, if several."""
        processes: int = self.accelerator.num_processes
        return batch_size * processes if processes > 1 else 1


class _Order(Sampler[int]):
    """A fresh random order each epoch, the samples of one optimiser step with the longest first.

    That way a step's forward passes hold samples alike in length and pad less. What a step learns from stays the
    same random draw, and its loss is a mean over samples, so it does not depend on how they are grouped. pass_size:
    samples of a pass on all devices; several of them need full passes, which accelerate would fill with samples that
    then count twice, so they are filled here with ones that do not count.
    """

    def __init__(
        self, lengths: Sequence[int], *, batch_size: int, pass_size: int, seed: int, epoch: Callable[[], int]
    ) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.filling = -len(lengths) % pass_size
        self.seed = seed
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths) + self.filling

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch())
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        for start in range(0, len(order), self.batch_size):
            yield from sorted(order[start : start + self.batch_size], key=lambda i: -self.lengths[i])
        yield from [FILLING] * self.filling


class AfterStep(TrainerCallback):
    """Calls back after each optimiser step."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call

    def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
        """Call back."""
        self.call()


class StopOnNonFinite(TrainerCallback):
    """Ends a training whose loss is NaN or infinite, before a checkpoint is made of it."""

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Raise NonFinite."""
        logs: Mapping[str, float] = kwargs["logs"]
        for name, phase in ((TRAIN_LOSS, "training"), (VALID_LOSS, "validation")):
            if not isfinite(logs.get(name, 0.0)):
                raise NonFinite(
                    f"The {phase} loss is NaN or infinite at step {state.global_step}",
                    "Lower the learning_rate of the training: of finetune, or of warmstart.",
                )


class StopEarly(TrainerCallback):
    """Ends training after `patience` evaluations without a lower validation loss.

    transformers' own EarlyStoppingCallback keeps a counter that a resumed training has to be given back; here the
    log, which is in the checkpoint, says it all.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def stops(self, log: Sequence[Mapping[str, float]]) -> bool:
        """Whether the lowest validation loss of the log is `patience` evaluations old."""
        losses = [entry[VALID_LOSS] for entry in log if VALID_LOSS in entry]
        return bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= self.patience

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Ask the Trainer to stop."""
        if self.stops(state.log_history):
            control.should_training_stop = True
