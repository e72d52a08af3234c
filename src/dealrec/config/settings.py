"""The settings: one frozen model per stage, every field described, unknown keys refused.

The order of the fields is the order of the pipeline.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from dealrec.config.recommenders import RECOMMENDERS, LLMConfig, SignalsConfig, TIGERConfig
from dealrec.config.selection import (
    CompareConfig,
    EffortConfig,
    LossDropConfig,
    PoolConfig,
    SelectConfig,
    SurrogateLossDropConfig,
    TextConfig,
)
from dealrec.config.solvers import CGConfig, Section, SolverConfig
from dealrec.config.training import FinetuneConfig, WarmStartConfig
from dealrec.engine.settings import Settings


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
    targets: Literal["first", "last", "all"] = Field(
        "first",
        description="Which held-out items of a user are predicted, in validation and testing: the first, from what came"
        " before the part; the last or all, each from all that came before it, the part's own items included, so that"
        " new users count. With all, measures are means over a user's items.",
    )
    warm_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the training interactions, the earliest, on which the recommender is trained before"
        " effort is scored (warm start); samples are then of the later ones. 0: none. The cut is at one time for all"
        " users, so their timestamps must be comparable.",
    )

    final: bool = Field(
        False,
        description="Select from all interactions, those of validation and test too, to ship what is selected: the test"
        " part is then what signals aim at, no sample is scored by a model that was tuned on it, and nothing is"
        " evaluated. `dealrec run --final` sets it.",
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


class EvaluateConfig(Section):
    """Test loss and ranking over the whole catalogue."""

    loss_users: int | None = Field(1000, ge=1, description="Test users whose loss is measured. null: all.")
    valid_samples: int = Field(0, ge=0, description="Validation samples whose loss is measured too, at most.")
    ranking_users: int | None = Field(1000, ge=0, description="Test users who are ranked for. null: all; 0: none.")
    log_rank: bool = Field(
        False,
        description="Measure log-rank too: the logarithm of the target's exact rank in the whole catalogue, for those"
        " who are ranked for. Recall says nothing of most users, log-rank something of each. With BIGRec it is one more"
        " pass over the titles; with TIGER it takes more time than Recall, the more the larger the catalogue and the"
        " worse the ranks.",
    )
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

    replicate: int = Field(
        0, ge=0, description="Number of a repetition from the surrogate's seed on: other draws on the same data."
    )
    warm_replicate: int = Field(0, ge=0, description="Number of a repetition of the warm start, on the same data.")
    data: DataConfig = Field(DataConfig(), description="Interactions, splits and samples.")
    surrogate: SurrogateConfig = Field(SurrogateConfig(), description="The surrogate recommender.")
    influence: InfluenceConfig = Field(InfluenceConfig(), description="Influence scores.")
    surrogate_loss_drop: SurrogateLossDropConfig = Field(
        SurrogateLossDropConfig(), description="The surrogate's loss drop."
    )
    text: TextConfig = Field(TextConfig(), description="Embeddings of titles.")
    recommender: Literal["bigrec", "tiger"] = Field(
        "bigrec", description="What is fine-tuned. bigrec: an LLM that writes titles. tiger: a T5 over semantic ids."
    )
    llm: LLMConfig = Field(LLMConfig(), description="The LLM of BIGRec.")
    tiger: TIGERConfig = Field(TIGERConfig(), description="TIGER.")
    warmstart: WarmStartConfig = Field(
        WarmStartConfig(), description="The warm start of BIGRec, where data.warm_share sets samples apart."
    )
    signals: SignalsConfig = Field(
        SignalsConfig(), description="The recommender that signals are taken with, if it is not the one of the run."
    )
    pool: PoolConfig = Field(PoolConfig(), description="Candidates of the recommender's signals.")
    effort: EffortConfig = Field(EffortConfig(), description="Effort scores.")
    loss_drop: LossDropConfig = Field(LossDropConfig(), description="The recommender's loss drop.")
    select: SelectConfig = Field(SelectConfig(), description="Selection.")
    finetune: FinetuneConfig = Field(FinetuneConfig(), description="Few-shot fine-tuning.")
    evaluate: EvaluateConfig = Field(EvaluateConfig(), description="Evaluation.")
    compare: CompareConfig = Field(CompareConfig(), description="Comparison of methods.")
    fidelity: FidelityConfig = Field(FidelityConfig(), description="Check of influence against retraining.")

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, values: Any) -> Any:
        """effort.pool became pool.size; the pool was stratified by influence."""
        effort = values.get("effort") if isinstance(values, dict) else None
        if not isinstance(effort, dict) or "pool" not in effort:
            return values
        pool = {"size": effort["pool"], "method": "influence-strata", **(values.get("pool") or {})}
        return {**values, "effort": {key: value for key, value in effort.items() if key != "pool"}, "pool": pool}

    def unread_sections(self) -> frozenset[str]:
        """Sections of the other recommenders."""
        sections = frozenset().union(*(recommender.sections for recommender in RECOMMENDERS.values()))
        return sections - RECOMMENDERS[self.recommender].sections

    def scorer(self) -> Self:
        """The settings as the recommender's signals see them: of the recommender that `signals` names, if any."""
        if self.signals.llm is not None:
            return self.model_copy(update={"recommender": "bigrec", "llm": self.signals.llm})
        if self.signals.tiger is not None:
            return self.model_copy(update={"recommender": "tiger", "tiger": self.signals.tiger})
        return self

    @model_validator(mode="after")
    def _recommenders_can_start(self) -> Self:
        self._check_start()
        if self.scorer() is not self:
            try:
                self.scorer()._check_start()
            except ValueError as error:
                raise ValueError(f"signals: {error}") from None
        return self

    def _check_start(self) -> None:
        if self.finetune.full and self.llm.adapter is not None:
            raise ValueError("finetune.full cannot go on from llm.adapter: merge the adapter into the LLM first")
        if self.finetune.full and self.llm.dtype == "bfloat16":
            raise ValueError("finetune.full needs llm.dtype float32: bfloat16 would round small steps away")
        if self.data.warm_share and self.data.format == "dealrec":
            raise ValueError("data.warm_share cuts in time, and the files of format 'dealrec' have no times")
        if RECOMMENDERS[self.recommender].warm_start and not self.data.warm_share:
            learnt = f"recommender {self.recommender!r} has learnt nothing without a warm start"
            raise ValueError(f"{learnt}: set data.warm_share, e.g. to 0.8")
