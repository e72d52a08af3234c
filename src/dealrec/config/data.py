"""The settings of the data: where they come from, how they are split, and what becomes a sample."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from dealrec.config.solvers import Section


class Columns(Section):
    """How the columns of the user's files are called and read."""

    user: str | None = Field(
        "user_id",
        description="User id, a string or an integer; a session id may stand in for it. null: of rows that name none.",
    )
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
    row: str | None = Field(None, description="Format rows: id of a row, each once. null: rows are numbered from 1.")
    prompt: str | None = Field(
        None,
        description="Format rows: what the model reads, a text or a list of messages. null, and none of those below:"
        " by the names of the fields, as Alpaca, ShareGPT, TRL and others have them.",
    )
    completion: str | None = Field(None, description="Format rows: what the model is to write after the prompt.")
    messages: str | None = Field(
        None, description="Format rows: a conversation, as role and content, or from and value (ShareGPT)."
    )
    input_ids: str | None = Field(None, description="Format rows: tokens, prompt and completion.")
    labels: str | None = Field(None, description="Format rows: the tokens that are learnt, -100 elsewhere.")
    history: str | None = Field(
        None, description="Format rows: the item ids before the target, a list, or a text that holds several."
    )
    target: str | None = Field(None, description="Format rows: the item id that the row is about.")
    interaction: str | None = Field(
        None,
        description="Format rows: what the rows of one interaction share. null: user, history, target and time.",
    )
    history_separator: str | None = Field(
        None,
        min_length=1,
        description="Format rows: what separates items in a history of text. null: it is a list as JSON or Python write"
        " it, or separated by the first of | ; tab , space that occurs.",
    )

    @model_validator(mode="after")
    def _a_separator_needs_a_category(self) -> Self:
        if self.category_separator is not None and self.category is None:
            raise ValueError("category_separator needs data.columns.category, the name of the column of categories")
        return self


class TemplateConfig(Section):
    """What a training row reads and writes, where the files hold its parts alone."""

    prompt: str = Field(
        description="What the model reads; {field} stands for a field of the row, of a list for its items with commas."
    )
    completion: str = Field(description="What it is to write after that, likewise.")


class DataConfig(Section):
    """Where the interactions come from, how they are split, and what becomes a sample."""

    format: Literal["table", "recbole", "dealrec", "rows"] = Field(
        "table",
        description="table: CSV, Parquet or JSON Lines. recbole: .inter and .item files."
        " dealrec: the folder of sequential_{train,valid,test}.txt of the DEALRec release."
        " rows: training rows of your own, see data.rows.",
    )
    interactions: Path = Field(
        Path("interactions.parquet"),
        description="Interactions: a file, a folder with its parts, or the dealrec folder.",
    )
    items: Path | None = Field(
        Path("items.parquet"), description="Items with their titles. null: with format rows, titles are of their text."
    )
    rows: Path | list[Path] | None = Field(
        None,
        description="Format rows: the rows that the model is trained on today, as JSON Lines, JSON, CSV or Parquet; a"
        " file, a list of files, or a folder of parts. data.columns says which of their fields hold what.",
    )
    valid_rows: Path | list[Path] | None = Field(
        None,
        description="Format rows: those to aim at. null: data.valid_share of the interactions in data.rows, the latest"
        " if there are times, else drawn.",
    )
    test_rows: Path | list[Path] | None = Field(
        None, description="Format rows: those to evaluate on, by their loss. null: the run ends with the export."
    )
    template: TemplateConfig | None = Field(
        None,
        description="Format rows: prompt and completion made of fields, of files whose trainer writes them in its code,"
        " such as MiniOneRec's. null: the rows hold them.",
    )
    other_rows: Literal["pass", "drop"] = Field(
        "pass",
        description="Format rows: what becomes of rows without an interaction, such as general chat, where others have"
        " one. pass: exported whole, beside those that are selected. drop: left out.",
    )
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

    @model_validator(mode="before")
    @classmethod
    def _rows_name_their_own(cls, values: Any) -> Any:
        """Of rows nothing is there unless it is named: no items file, no user, no time."""
        if not isinstance(values, dict) or values.get("format") != "rows":
            return values
        columns = values.get("columns", {})
        if isinstance(columns, dict):
            columns = {"user": None, "timestamp": None, **columns}
        return {"items": None, **values, "columns": columns}

    @model_validator(mode="after")
    def _rows_go_with_their_format(self) -> Self:
        if self.format != "rows":
            named = [name for name in ("rows", "valid_rows", "test_rows") if getattr(self, name) is not None]
            if named:
                raise ValueError(f"data.{named[0]} needs data.format: rows")
            if self.items is None or self.columns.user is None:
                missing = "items" if self.items is None else "columns.user"
                raise ValueError(f"data.{missing} can be null with data.format: rows alone")
            return self
        if self.rows is None:
            raise ValueError("format 'rows' needs data.rows, the file of the training rows")
        if (self.columns.history is None) != (self.columns.target is None):
            raise ValueError("data.columns.history and data.columns.target go together")
        if self.final:
            raise ValueError("data.final is of interactions: of rows, name all that there are in data.rows")
        if self.warm_share and self.columns.timestamp is None:
            raise ValueError("data.warm_share cuts in time: name data.columns.timestamp")
        return self

    @property
    def has_interactions(self) -> bool:
        """Whether the settings say which items a sample is of; without, there is nothing for a surrogate to learn."""
        return self.format != "rows" or self.columns.target is not None

    @property
    def whole_sequences(self) -> bool:
        """Whether all items of a sample count in the surrogate's training, there being one sample of a user."""
        return self.format != "rows" and self.samples_per_user == 1

    @model_validator(mode="after")
    def _columns_go_with_the_split(self) -> Self:
        if self.split == "column" and self.columns.split is None and self.format != "dealrec":
            raise ValueError("split 'column' needs data.columns.split, the name of the column that holds the split")
        if self.min_rating is not None and self.columns.rating is None:
            raise ValueError("min_rating needs data.columns.rating, the name of the column that holds the ratings")
        return self
