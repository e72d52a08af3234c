"""The settings of trainings on the Trainer of transformers."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dealrec.config.solvers import Section


class TrainingConfig(Section):
    """Training on the Trainer of transformers."""

    epochs: int = Field(3, ge=1, description="Passes over the samples.")
    learning_rate: float = Field(1e-4, gt=0, description="Peak step size of AdamW; decays linearly.")
    batch_size: int = Field(16, ge=1, description="Samples per optimiser step.")
    micro_batch_size: int = Field(4, ge=1, description="Samples per forward pass; must divide batch_size.")
    warmup_share: float = Field(0.0, ge=0, lt=1, description="Share of the steps over which the step size rises.")
    checkpoint_every: Annotated[int, Field(ge=1)] | Literal["epoch"] | None = Field(
        None, description="Optimiser steps, or epoch, between checkpoints that a killed run goes on from. null: none."
    )
    patience: int | None = Field(
        None, ge=1, description="Evaluations without a lower validation loss until it stops, the best kept. null: off."
    )
    validation_samples: int = Field(500, ge=1, description="Validation samples at most; only with patience.")
    processes: int = Field(
        1, ge=1, description="Processes that train together, a device each, started by `accelerate launch`."
    )
    report_to: str = Field(
        "none",
        description="Experiment tracker, as the Trainer of transformers names it. tensorboard comes with the extra"
        " 'tracking' and shows the run directory's folder tracking.",
    )

    @model_validator(mode="after")
    def _micro_divides_batch(self) -> Self:
        if self.batch_size % (self.micro_batch_size * self.processes):
            raise ValueError(
                f"micro_batch_size ({self.micro_batch_size}) times processes ({self.processes}) must divide batch_size"
                f" ({self.batch_size})"
            )
        return self


class WarmStartConfig(TrainingConfig):
    """The warm start of BIGRec, on the earlier part of the training period."""

    epochs: int = Field(1, ge=1, description="Passes over the samples.")
    samples: int | None = Field(
        None,
        ge=1,
        description="Samples of the earlier part, at most, drawn at random. Some hundreds teach how to answer and"
        " little of what (a format warm-up). null: all.",
    )


class FinetuneConfig(TrainingConfig):
    """Fine-tuning of one adapter, or of the whole model, for each arm."""

    full: bool = Field(False, description="Train all parameters in the place of an adapter. TIGER always is.")
    seeds: int = Field(
        1,
        ge=1,
        description="Trainings of each arm, which differ in order and dropout, not in the weights they start from.",
    )
