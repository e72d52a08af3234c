"""The settings: one frozen model per stage, every field described, unknown keys refused.

The order of the fields is the order of the pipeline.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from dealrec.config.recommenders import RECOMMENDERS, LLMConfig, TIGERConfig
from dealrec.config.solvers import CGConfig, Section, SolverConfig
from dealrec.engine.settings import Settings


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("expected a count such as 1024, or a share such as 0.02")
    return value


def _count_or_share(value: int | float) -> int | float:
    if (isinstance(value, int) and value < 1) or (isinstance(value, float) and not 0 < value <= 1):
        raise ValueError("expected a count of at least 1, or a share above 0 and at most 1.0")
    return value


Budget = Annotated[int | float, BeforeValidator(_number), AfterValidator(_count_or_share)]


class Columns(Section):
    """How the columns of the user's files are called and read."""

    user: str = Field("user_id", description="User id, a string or an integer; a session id may stand in for it.")
    item: str = Field("item_id", description="Item id, a string or an integer; in both files.")
    timestamp: str | None = Field(
        "timestamp", description="Time of the interaction: a number, a date, or ISO 8601 text. null: row order."
    )
    rating: str | None = Field(None, description="Rating, a number; only needed with min_rating.")
    split: str | None = Field(None, description="Split of the interaction (train, valid or test); for split 'column'.")
    title: str = Field("title", description="Title of the item, in the items file.")
    category: str | None = Field(
        None, description="Categories of the item, in the items file: text or a list; only the report shows them."
    )
    category_separator: str | None = Field(
        None,
        min_length=1,
        description="What separates several categories in one text, such as '|'. null: a text is one category, but in"
        " RecBole's columns of sequences (name:token_seq) a space separates.",
    )

    @model_validator(mode="after")
    def _a_separator_needs_a_category(self) -> Self:
        if self.category_separator is not None and self.category is None:
            raise ValueError("category_separator needs data.columns.category, the name of the column of categories")
        return self


class DataConfig(Section):
    """Where the interactions come from, how they are split, and what becomes a sample."""

    format: Literal["table", "recbole", "dealrec"] = Field(
        "table",
        description="table: CSV, Parquet or JSON Lines. recbole: .inter and .item files."
        " dealrec: the folder of sequential_{train,valid,test}.txt of the DEALRec release.",
    )
    interactions: Path = Field(
        Path("interactions.parquet"),
        description="Interactions: a file, a folder with its parts, or the dealrec folder.",
    )
    items: Path = Field(Path("items.parquet"), description="Items with their titles.")
    columns: Columns = Field(Columns(), description="Names of the columns in your files.")
    split: Literal["time", "column", "leave-last-out"] = Field(
        "time",
        description="time: cut at two points of global time. column: as the split column says."
        " leave-last-out: the last item of each user is for testing, the one before for validation (the future leaks).",
    )
    valid_share: float = Field(0.1, gt=0, lt=0.5, description="Share of the interactions for validation; split 'time'.")
    test_share: float = Field(0.1, gt=0, lt=0.5, description="Share of the interactions for testing; split 'time'.")
    min_rating: float | None = Field(None, description="Interactions rated lower are dropped. null: all are kept.")
    repeats: Literal["keep", "dedupe", "collapse", "first"] = Field(
        "dedupe",
        description="What becomes of interactions of one user with an item that they had before. keep: all stay."
        " dedupe: the same item at the same time counts once. collapse: the same item several times in a row, at"
        " whatever times, counts once. first: only the first interaction with each item stays.",
    )
    k_core: int = Field(
        0, ge=0, description="Users and items with fewer training interactions are dropped, repeatedly. 0: none."
    )
    samples_per_user: int = Field(
        1, ge=1, description="The last N training items of a user become targets. 1: as in the paper."
    )
    max_history: int = Field(50, ge=1, description="Most recent items kept of a sample's history.")
    warm_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the training interactions, the earliest, on which the recommender is trained before"
        " effort is scored (warm start); samples are then of the later ones. 0: none. The cut is at one time for all"
        " users, so their timestamps must be comparable.",
    )

    @model_validator(mode="after")
    def _columns_go_with_the_split(self) -> Self:
        if self.split == "column" and self.columns.split is None and self.format != "dealrec":
            raise ValueError("split 'column' needs data.columns.split, the name of the column that holds the split")
        if self.min_rating is not None and self.columns.rating is None:
            raise ValueError("min_rating needs data.columns.rating, the name of the column that holds the ratings")
        return self


class SurrogateConfig(Section):
    """The small recommender on which influence is computed."""

    kind: Literal["sasrec", "gru4rec", "bert4rec", "mf", "custom"] = Field(
        "sasrec", description="sasrec, gru4rec, bert4rec; mf: matrix factorisation; custom: yours, see module."
    )
    module: Path | None = Field(
        None,
        description="With kind custom: a Python file of yours that is run; its surrogate(n_items, max_length) must"
        " return a dealrec.surrogate.Surrogate.",
    )
    dim: int = Field(64, ge=1, description="Width of the item embeddings.")
    layers: int = Field(2, ge=1, description="Transformer or recurrent layers.")
    heads: int = Field(1, ge=1, description="Attention heads of the transformers; must divide dim.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout in training.")
    loss: Literal["bce", "sampled-softmax", "softmax"] = Field(
        "sampled-softmax",
        description="bce: binary cross-entropy against sampled negatives, as SASRec is published. sampled-softmax:"
        " cross-entropy among target and negatives. softmax: cross-entropy over all items.",
    )
    negatives: int = Field(64, ge=1, description="Sampled negative items per position; not for softmax.")
    hidden_share: float = Field(0.2, ge=0, lt=1, description="Share of the items that bert4rec has to fill in.")
    learning_rate: float = Field(1e-3, gt=0, description="Step size of Adam.")
    batch_size: int = Field(256, ge=1, description="Units (training sequences) per step.")
    max_epochs: int = Field(200, ge=1, description="Epochs at most.")
    patience: int = Field(10, ge=1, description="Epochs without a better validation NDCG@10 before training ends.")

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide dim ({self.dim})")
        return self

    @model_validator(mode="after")
    def _custom_has_a_module(self) -> Self:
        if (self.kind == "custom") != (self.module is not None):
            raise ValueError("kind 'custom' and surrogate.module, the Python file to run, go together")
        return self


class InfluenceConfig(Section):
    """How much the risk would rise if a sample were removed (Eq. 5-11 of the paper)."""

    risk: Literal["train", "valid"] = Field(
        "valid", description="Risk over the training units (train: the paper) or over the validation samples."
    )
    parameters: list[str] = Field(
        ["*"],
        min_length=1,
        description="Name globs of the surrogate's parameters. '*': all, embeddings included; 'last-block': its last"
        " layer; 'last-block.X': the parameter X of it. ekfac takes linear layers alone: 'last-block'.",
    )
    solver: SolverConfig = Field(
        CGConfig(),
        description="Solver of (H + damping I) x = mean gradient; kind: cg, lissa, arnoldi, ekfac or identity.",
    )
    batch_positions: int = Field(
        4096,
        ge=1,
        description="Positions per batch of the passes over the data, padding included. A CPU's cache likes few, a GPU"
        " many; the memory of a batch grows with them and with the negatives.",
    )


class FidelityConfig(Section):
    """How well influence predicts retraining: only for `dealrec fidelity`."""

    subsets: int = Field(50, ge=4, description="Random subsets of the units, of each share, to train on again.")
    shares: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [0.5, 0.1], min_length=1, description="Sizes of the subsets as shares of the units."
    )
    seeds: int = Field(2, ge=2, description="Trainings per subset; their disagreement is the ceiling of every score.")
    groups: int = Field(20, ge=1, description="Groups of users whose risk is predicted.")
    surrogates: int = Field(3, ge=1, description="Surrogates from other seeds, for the stability of the scores.")
    compared: list[InfluenceConfig] | None = Field(
        None,
        min_length=1,
        description="Influence sections that are compared. null: both risks with three sets of parameters under cg,"
        " and the other solvers on the last block.",
    )
    workers: int = Field(2, ge=1, description="Processes at a time, one thread each. The results do not depend on it.")


class EffortConfig(Section):
    """The LLM's gradient norm for each candidate (Eq. 12 of the paper)."""

    pool: Budget = Field(
        0.1, description="Candidates that are scored, stratified by influence: a count (at most all), or a share."
    )
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


class SelectConfig(Section):
    """Coverage-enhanced selection (Eq. 13 and Algorithm 2 of the paper)."""

    budget: Budget = Field(0.02, description="Samples to select: a count, or a share of all training samples.")
    effort_weight: float = Field(0.3, ge=0, description="Weight of effort against influence, both scaled to [0, 1].")
    strata: int = Field(50, ge=1, description="Strata of equal width of the overall score.")
    hard_prune: float = Field(
        0.0, ge=0, lt=1, description="Share of the candidates with the highest overall scores that is dropped first."
    )
    selections: int = Field(
        1, ge=1, description="Selections, each drawn anew from the same scores; the first is the one that is exported."
    )
    random_arms: int = Field(1, ge=0, description="Random selections of the same size to compare with.")


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


class FinetuneConfig(TrainingConfig):
    """Fine-tuning of one adapter, or of the whole model, for each arm."""

    full: bool = Field(False, description="Train all parameters in the place of an adapter. TIGER always is.")
    seeds: int = Field(
        1,
        ge=1,
        description="Trainings of each arm, which differ in order and dropout, not in the weights they start from.",
    )


class EvaluateConfig(Section):
    """Test loss and ranking over the whole catalogue."""

    loss_users: int | None = Field(1000, ge=1, description="Test users whose loss is measured. null: all.")
    ranking_users: int | None = Field(1000, ge=1, description="Test users who are ranked for. null: all.")
    ks: list[Annotated[int, Field(ge=1)]] = Field([10, 20], min_length=1, description="Cut-offs K.")
    beams: int = Field(4, ge=1, description="Beams of the generation; TIGER keeps at least as many as the largest K.")
    max_new_tokens: int = Field(32, ge=1, description="Tokens of a generated title at most.")
    batch_size: int = Field(8, ge=1, description="Users per generation batch.")
    batch_tokens: int = Field(2048, ge=1, description="Tokens per batch of loss and embedding, padding included.")
    exclude_seen: bool = Field(
        True, description="Items that the user has had before the test part are not recommended again."
    )
    popularity_weight: float = Field(
        0.0, ge=0, description="BIGRec: how much popular items are favoured where a title is looked up. 0: not at all."
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="Level of the intervals.")
    resamples: int = Field(10_000, ge=100, description="Resamples of each bootstrap and of each permutation test.")

    @field_validator("ks")
    @classmethod
    def _each_once(cls, ks: list[int]) -> list[int]:
        return sorted(set(ks))


class Config(Settings):
    """All settings of a run."""

    data: DataConfig = Field(DataConfig(), description="Interactions, splits and samples.")
    surrogate: SurrogateConfig = Field(SurrogateConfig(), description="The surrogate recommender.")
    influence: InfluenceConfig = Field(InfluenceConfig(), description="Influence scores.")
    recommender: Literal["bigrec", "tiger"] = Field(
        "bigrec", description="What is fine-tuned. bigrec: an LLM that writes titles. tiger: a T5 over semantic ids."
    )
    llm: LLMConfig = Field(LLMConfig(), description="The LLM of BIGRec.")
    tiger: TIGERConfig = Field(TIGERConfig(), description="TIGER.")
    warmstart: TrainingConfig = Field(
        TrainingConfig(epochs=1), description="The warm start of BIGRec, where data.warm_share sets samples apart."
    )
    effort: EffortConfig = Field(EffortConfig(), description="Effort scores.")
    select: SelectConfig = Field(SelectConfig(), description="Selection.")
    finetune: FinetuneConfig = Field(FinetuneConfig(), description="Few-shot fine-tuning.")
    evaluate: EvaluateConfig = Field(EvaluateConfig(), description="Evaluation.")
    fidelity: FidelityConfig = Field(FidelityConfig(), description="Check of influence against retraining.")

    def unread_sections(self) -> frozenset[str]:
        """Sections of the other recommenders."""
        sections = frozenset().union(*(recommender.sections for recommender in RECOMMENDERS.values()))
        return sections - RECOMMENDERS[self.recommender].sections

    @model_validator(mode="after")
    def _recommender_can_start(self) -> Self:
        if self.finetune.full and self.llm.adapter is not None:
            raise ValueError("finetune.full cannot go on from llm.adapter: merge the adapter into the LLM first")
        if self.finetune.full and self.llm.dtype == "bfloat16":
            raise ValueError("finetune.full needs llm.dtype float32: bfloat16 would round small steps away")
        if self.data.warm_share and self.data.format == "dealrec":
            raise ValueError("data.warm_share cuts in time, and the files of format 'dealrec' have no times")
        if RECOMMENDERS[self.recommender].warm_start and not self.data.warm_share:
            learnt = f"recommender {self.recommender!r} has learnt nothing without a warm start"
            raise ValueError(f"{learnt}: set data.warm_share, e.g. to 0.8")
        return self
