"""The settings of signals, of the pool of candidates and of selection."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from dealrec.config.solvers import FOLDER_OR_ID, Section


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("expected a count such as 1024, or a share such as 0.02")
    return value


def _count_or_share(value: int | float) -> int | float:
    if (isinstance(value, int) and value < 1) or (isinstance(value, float) and not 0 < value <= 1):
        raise ValueError("expected a count of at least 1, or a share above 0 and at most 1.0")
    return value


Budget = Annotated[int | float, BeforeValidator(_number), AfterValidator(_count_or_share)]


Options = dict[str, bool | int | float | str]


class PoolConfig(Section):
    """The candidates that signals of the recommender are computed for. Methods that need none see all samples."""

    size: Budget = Field(
        0.1, description="Candidates: a count (at most all), or a share of the samples. 1.0: all, whatever the method."
    )
    method: str = Field(
        "surrogate-loss-drop",
        description="Method by which they are selected, of signals that need no recommender: see dealrec methods.",
    )


class SurrogateLossDropConfig(Section):
    """How far a sample's loss falls when the trained surrogate is tuned for a moment on validation samples."""

    validation_samples: int = Field(2048, ge=1, description="Validation samples that it is tuned on, at most.")
    epochs: int = Field(3, ge=1, description="Passes over them.")
    learning_rate: float = Field(1e-3, gt=0, description="Step size of Adam.")
    batch_size: int = Field(256, ge=1, description="Validation samples per step.")


class TextConfig(Section):
    """What samples are about: embeddings of titles, where a method reads them."""

    encoder: Annotated[str | None, FOLDER_OR_ID] = Field(
        None,
        description="Embeds the titles, as tiger.text_encoder does: a directory of sentence-transformers, or a model"
        " id of the hub. null: the one of tiger.text_encoder.",
    )
    clusters: int = Field(
        256, ge=1, description="Clusters of target titles, at most, that `spread: cluster-quota` fills."
    )


class LossDropConfig(Section):
    """How far a sample's loss falls when the recommender is tuned for a moment on validation samples.

    It is tuned as finetune says, but for what stands here.
    """

    validation_samples: int = Field(2048, ge=1, description="Validation samples that it is tuned on, at most.")
    epochs: int = Field(2, ge=1, description="Passes over them.")
    learning_rate: float | None = Field(None, gt=0, description="Peak step size. null: that of finetune.")
    batch_tokens: int = Field(2048, ge=1, description="Tokens per batch of the losses, padding included.")
    shard_size: int = Field(4096, ge=1, description="Samples per shard; a killed run resumes at the next shard.")


class EffortConfig(Section):
    """The recommender's gradient norm for each candidate (Eq. 12 of the paper)."""

    parameters: list[str] | None = Field(
        None,
        min_length=1,
        description="Name globs of the parameters whose gradient is taken, frozen ones too, such as"
        " '*.layers.29.*lora*' or '*.q_proj.base_layer.weight'. null: all that fine-tuning changes.",
    )
    length_exponent: float | Literal["fitted"] = Field(
        0.0,
        description="Effort is the norm times the number of target tokens to this power. 0: as in the paper, where"
        " short titles look hard; 0.5: tokens with independent gradients; 1: the summed loss; fitted: free of length.",
    )
    batch_tokens: int = Field(1024, ge=1, description="Tokens per batch, padding included.")
    batch_memory: int | None = Field(
        None,
        ge=1,
        description="MiB that the process may take (on a GPU: its tensors): tokens per batch are then chosen by"
        " measuring small batches. null: batch_tokens. The scores differ by rounding alone.",
    )
    shard_size: int = Field(256, ge=1, description="Samples per shard; a killed run resumes at the next shard.")


class ArmConfig(Section):
    """A selection to compare with."""

    method: str = Field(description="A method's name, or the path of a Python file with one of yours.")
    budget: Budget | None = Field(None, description="A count of select.budget_unit, or a share. null: select.budget.")
    options: Options = Field({}, description="Options of the method.")
    learning_rate: float | None = Field(
        None, gt=0, description="Peak step size of its fine-tuning. null: finetune.learning_rate."
    )


# What arms are called is what their folders are called. The rest are the run's own.
_NAME = re.compile(r"\w[\w .,@=-]{0,99}")
_OWN = re.compile(r"base|candidates|strata|selected(-\d+)?|random-\d+")


def is_arm_name(name: str) -> bool:
    """Whether an arm may be called so: its folder lies where the others do, and is none of theirs.

    >>> [is_arm_name(name) for name in ("wide", "loss-drop@0.1", "../up", "random-0", "a\\u202eb")]
    [True, True, False, False, False]
    """
    return _NAME.fullmatch(name) is not None and _OWN.fullmatch(name) is None


class SelectConfig(Section):
    """Selection of the samples that are worth fine-tuning on."""

    method: str = Field(
        "both-loss-drops",
        description="A method's name (dealrec methods shows them), or the path of a Python file with one of yours.",
    )
    budget: Budget = Field(0.02, description="Samples to select: a count, or a share of all training samples.")
    budget_unit: Literal["samples", "rows", "tokens"] = Field(
        "samples",
        description="What budgets count, of this and of all arms. rows: training rows of your own, of which a sample"
        " may have several (data.format: rows). tokens: all that the recommender reads of a sample, the history too."
        " As many samples are selected as keep within it.",
    )
    options: Options = Field({}, description="Options of the method; dealrec's have settings of their own below.")
    learning_rate: float | None = Field(
        None,
        gt=0,
        description="Peak step size of the fine-tuning of these and of random samples, and of no signal's. null:"
        " finetune.learning_rate.",
    )
    effort_weight: float = Field(
        0.3, ge=0, description="dealrec: weight of effort against influence, both scaled to [0, 1]."
    )
    strata: int = Field(50, ge=1, description="dealrec: strata of equal width of the overall score.")
    hard_prune: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="dealrec: share of the candidates with the highest overall scores that is dropped first.",
    )
    selections: int = Field(
        1, ge=1, description="Selections, each drawn anew from the same scores; the first is the one that is exported."
    )
    random_arms: int = Field(1, ge=0, description="Random selections of the same size to compare with.")
    arms: dict[str, ArmConfig] = Field({}, description="Further selections to compare with, by name.")

    @field_validator("arms")
    @classmethod
    def _named_as_folders(cls, arms: dict[str, ArmConfig]) -> dict[str, ArmConfig]:
        for name in arms:
            if not is_arm_name(name):
                raise ValueError(
                    f"no arm can be called {name[:100]!r}: letters, digits and - _ . , @ = within, at most 100 of them,"
                    " and none of the run's own names such as base, selected and random-0"
                )
        return arms

    @model_validator(mode="before")
    @classmethod
    def _settings_of_dealrec_choose_it(cls, values: Any) -> Any:
        """Configs from before there were methods mean the paper's by its settings."""
        own = {"effort_weight", "strata", "hard_prune"}
        if isinstance(values, dict) and "method" not in values and own & values.keys():
            return {"method": "dealrec", **values}
        return values


class CompareConfig(Section):
    """The comparison of methods: only for `dealrec compare`."""

    methods: list[str | ArmConfig] = Field(
        [
            *("loss-drop", "surrogate-loss-drop", "dealrec", "influence"),
            *("importance-resampling", "most-recent", "validation"),
        ],
        description="Methods beside that of select: names, paths, or a method with budget and options.",
    )
    replicates: int = Field(
        3, ge=1, description="Repetitions from the surrogate's seed on. One is allowed, and gets no verdict."
    )
    budgets: list[Budget] = Field([], description="Further budgets at which every method selects.")
    random_sizes: list[Annotated[float, Field(gt=0)]] = Field(
        [1, 2, 4, 8, 16],
        min_length=1,
        description="Sizes of the random arms, as multiples of select.budget: the curve that all are read off.",
    )
    valid_samples: int = Field(
        2048, ge=0, description="Validation samples, at most, whose loss is measured to see what was fitted to them."
    )
    learning_rates: list[Annotated[float, Field(gt=0)]] = Field(
        [],
        description="Step sizes among which each budget gets its own, the same for all arms: the one at which Random of"
        " that size has the lowest loss on validation samples, in a replicate apart. None: finetune.learning_rate.",
    )
    warm_starts: Literal["shared", "own"] = Field(
        "shared",
        description="Of the replicates, where data.warm_share sets samples apart. shared: all go on from one, and what"
        " comes out is true of that model. own: each trains its own, and it is true of others of its kind.",
    )
    workers: int = Field(1, ge=1, description="Replicates at a time, a process each.")
