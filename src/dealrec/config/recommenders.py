"""The settings of the recommenders that are fine-tuned: BIGRec's LLM, an LLM over semantic ids, and TIGER."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from dealrec.config.solvers import FOLDER_OR_ID, Section


class LoRAConfig(Section):
    """The learnable parameters of the LLM."""

    r: int = Field(8, ge=1, description="Rank.")
    alpha: int = Field(16, ge=1, description="Scale; the update is multiplied by alpha / r.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout in front of the adapters, in training only.")
    target_modules: Annotated[list[str], Field(min_length=1)] | None = Field(
        None,
        description="Layers that are adapted. null: those that PEFT adapts in the architecture, mostly q_proj, v_proj.",
    )


class PromptConfig(Section):
    """What the LLM reads. `{history}` is replaced by the titles, quoted and separated by commas."""

    template: str = Field(
        "### Instruction:\nGiven the items that the user has interacted with, in order of time,"
        " recommend the next item by writing its title.\n\n### Input:\n{history}\n\n### Response:\n",
        description="Prompt; must contain {history} once.",
    )
    chat: bool = Field(
        False,
        description="Whether the prompt is the user's turn in the tokenizer's own chat template, and the title what is"
        " answered, in the place of a text that the title goes on.",
    )
    max_items: int = Field(10, ge=1, description="Most recent items of the history that are shown.")

    @field_validator("template")
    @classmethod
    def _one_placeholder(cls, template: str) -> str:
        if template.count("{history}") != 1:
            raise ValueError("must contain {history} exactly once")
        return template

    max_title_tokens: int = Field(32, ge=1, description="A longer title is cut.")
    max_prompt_tokens: int = Field(512, ge=16, description="The oldest items are left out until the prompt fits.")


class RowsConfig(Section):
    """How training rows of your own (data.format: rows) become tokens."""

    max_tokens: int | None = Field(None, ge=2, description="Tokens of a row at most. null: the LLM's positions.")
    longer: Literal["cut", "refuse"] = Field(
        "cut",
        description="Rows that are longer. cut: their end, as trainers do; of one that would lose all that is to be"
        " learnt, its beginning. refuse: the first is named.",
    )


class LLMConfig(Section):
    """The LLM of BIGRec."""

    model: Annotated[str, FOLDER_OR_ID] = Field(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        description="A directory in Hugging Face format, or a model id of its hub.",
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a model id.")
    adapter: Path | None = Field(
        None, description="Folder of a PEFT adapter to start from, in the place of a fresh one (lora is not used then)."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Of the LLM's weights; adapters are float32. auto: bfloat16 on a GPU that has it, else float32;"
        " with finetune.full float32.",
    )
    quantization: Literal["8bit", "4bit"] | None = Field(
        None, description="Of the LLM's frozen weights, by bitsandbytes; needs a CUDA GPU."
    )
    lora: LoRAConfig = Field(LoRAConfig(), description="The adapters.")
    prompt: PromptConfig = Field(PromptConfig(), description="The prompt.")
    rows: RowsConfig = Field(RowsConfig(), description="Training rows of your own.")


class CodesConfig(Section):
    """The residual-quantised VAE that gives items their semantic ids."""

    levels: int = Field(3, ge=1, description="Codes of an item, from coarse to fine; one more tells equal ones apart.")
    codes: int = Field(256, ge=2, description="Codes per level; a small catalogue wants fewer (1,700 items: 64).")
    epochs: int = Field(200, ge=1, description="Passes over the items.")
    batch_size: int = Field(1024, ge=1, description="Items per step.")


class T5Config(Section):
    """The encoder-decoder. The paper's has d_model 128, 6 heads, d_kv 64, d_ff 1024 and 4 layers."""

    d_model: int = Field(64, ge=1, description="Width.")
    heads: int = Field(2, ge=1, description="Attention heads.")
    d_kv: int = Field(32, ge=1, description="Width of a head.")
    d_ff: int = Field(256, ge=1, description="Width of the feed-forward layers.")
    layers: int = Field(2, ge=1, description="Layers of the encoder, and as many of the decoder.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout in training.")


class TIGERConfig(Section):
    """TIGER, which is trained on the earlier part of the training period (data.warm_share) before effort is scored."""

    text_encoder: Annotated[str, FOLDER_OR_ID] = Field(
        "sentence-transformers/all-MiniLM-L6-v2",
        description="Embeds the titles: a directory of sentence-transformers, whose modules.json says how it pools, or"
        " a model id of the hub. Any other encoder in Hugging Face format will do; its token states are averaged.",
    )
    codes: CodesConfig = Field(CodesConfig(), description="The semantic ids.")
    t5: T5Config = Field(T5Config(), description="The model.")
    max_items: int = Field(20, ge=1, description="Most recent items of the history that are read.")
    learning_rate: float = Field(5e-3, gt=0, description="Peak step size of the warm start.")
    batch_size: int = Field(256, ge=1, description="Positions per step of the warm start.")
    max_epochs: int = Field(100, ge=1, description="Passes of the warm start at most.")
    patience: int = Field(10, ge=1, description="Epochs without a lower validation loss before it stops.")
    validation_samples: int = Field(
        1000,
        ge=1,
        description="Validation samples, at most, whose loss is taken after each epoch.",
    )


class SIDConfig(Section):
    """An LLM that reads and writes semantic ids: its vocabulary gains a token for each code."""

    text_encoder: Annotated[str, FOLDER_OR_ID] = Field(
        "sentence-transformers/all-MiniLM-L6-v2",
        description="Embeds the titles that the codes are fitted to; as tiger.text_encoder. Not read with item_tokens.",
    )
    codes: CodesConfig = Field(CodesConfig(), description="The semantic ids. Not read with item_tokens.")
    item_tokens: Path | None = Field(
        None,
        description="Semantic ids of your own: a table with a row an item, its id as data.columns.item says, and a"
        " column `tokens`, a list of texts or one such as <a_1><b_2>; as many of each item. null: codes are fitted.",
    )
    template: str = Field(
        "The user has had these items, in order of time: {history}\nThe next one: ",
        description="Prompt; must contain {history} once, for which the tokens of the items stand, and none between.",
    )
    max_items: int = Field(20, ge=1, description="Most recent items of the history that are read.")

    @field_validator("template")
    @classmethod
    def _one_place(cls, template: str) -> str:
        if template.count("{history}") != 1:
            raise ValueError("must contain {history} exactly once")
        return template


class SignalsConfig(Section):
    """What loss, loss drop, effort and alignment are taken with: another recommender, where one is named here.

    It has a warm start of its own, like that of the one that is fine-tuned.
    """

    llm: LLMConfig | None = Field(
        None, description="An LLM (BIGRec), such as a smaller one of the family. null: the recommender's own, or TIGER."
    )
    tiger: TIGERConfig | None = Field(
        None, description="A TIGER, which needs data.warm_share. null: the recommender's own, or the LLM."
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.llm is not None and self.tiger is not None:
            raise ValueError("signals.llm and signals.tiger exclude each other: signals are taken with one of them")
        return self


@dataclass(frozen=True)
class Recommender:
    """What the settings have to know of a recommender.

    sections: that no other recommender reads, so that a change there puts no run of another out of date. pretrained:
    the setting of the model that it begins with. model_required: whether a call has to name that, there being no usual
    one. warm_start: whether it has learnt nothing before its warm start.
    """

    sections: frozenset[str]
    pretrained: str
    model_required: bool
    warm_start: bool


RECOMMENDERS = {
    "bigrec": Recommender(frozenset({"llm", "warmstart"}), "llm.model", model_required=True, warm_start=False),
    "sid": Recommender(frozenset({"llm", "sid", "warmstart"}), "llm.model", model_required=True, warm_start=True),
    "tiger": Recommender(frozenset({"tiger"}), "tiger.text_encoder", model_required=False, warm_start=True),
}
