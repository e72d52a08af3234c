"""The settings: one frozen model per stage, every field described, unknown keys refused.

The order of the fields is the order of the pipeline.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from dealrec.config.data import DataConfig
from dealrec.config.recommenders import RECOMMENDERS, LLMConfig, SIDConfig, SignalsConfig, TIGERConfig
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
    shared_negatives: bool = Field(
        True,
        description="Whether all positions of a unit share its negatives, which is faster; a single one never is.",
    )
    hidden_share: float = Field(0.2, ge=0, lt=1, description="Share of the items that bert4rec has to fill in.")
    learning_rate: float = Field(1e-3, gt=0, description="Step size of Adam.")
    batch_size: int = Field(256, ge=1, description="Units (training sequences) per step.")
    max_epochs: int = Field(200, ge=1, description="Epochs at most.")
    patience: int = Field(10, ge=1, description="Epochs without a better validation NDCG@10 before training ends.")
    validation_samples: int = Field(
        10_000, ge=1, description="Validation samples, at most, that are ranked after each epoch, drawn at random."
    )

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
    recommender: Literal["bigrec", "sid", "tiger"] = Field(
        "bigrec",
        description="What is fine-tuned. bigrec: an LLM that writes titles. sid: an LLM that writes semantic ids."
        " tiger: a T5 over semantic ids.",
    )
    llm: LLMConfig = Field(LLMConfig(), description="The LLM of bigrec and sid.")
    sid: SIDConfig = Field(SIDConfig(), description="The semantic ids of recommender sid.")
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

    @model_validator(mode="before")
    @classmethod
    def _of_rows(cls, values: Any) -> Any:
        """Rows are evaluated by their loss; without interactions there is no surrogate to take signals of."""
        data = values.get("data") if isinstance(values, dict) else None
        if not isinstance(data, dict) or data.get("format") != "rows":
            return values
        columns = data.get("columns")
        usual: dict[str, dict[str, Any]] = {"evaluate": {"ranking_users": 0}}
        if not isinstance(columns, dict) or columns.get("target") is None:
            usual |= {"select": {"method": "loss-drop"}, "pool": {"method": "random"}}
            timed = isinstance(columns, dict) and columns.get("timestamp") is not None
            methods = ["importance-resampling", *(["most-recent"] if timed else []), "validation"]
            usual |= {"compare": {"methods": methods}}
        given = {name: values.get(name) for name in usual if isinstance(values.get(name), dict)}
        return values | {name: {**section, **given.get(name, {})} for name, section in usual.items()}

    @model_validator(mode="after")
    def _rows_are_evaluated_by_their_loss(self) -> Self:
        if self.data.format == "rows" and self.evaluate.ranking_users != 0:
            raise ValueError("rows are evaluated by their loss alone: evaluate.ranking_users must be 0")
        if self.data.format == "rows" and self.evaluate.log_rank:
            raise ValueError("rows are evaluated by their loss alone: evaluate.log_rank must be false")
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
        ready = self.recommender == "sid" and self.sid.item_tokens is not None
        if RECOMMENDERS[self.recommender].warm_start and not self.data.warm_share and not ready:
            learnt = f"recommender {self.recommender!r} has learnt nothing without a warm start"
            raise ValueError(f"{learnt}: set data.warm_share, e.g. to 0.8")
