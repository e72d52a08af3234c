"""Every table column, named once, and the type of the ids in them."""

from typing import Final, Literal

Id = int | str  # of a user or an item
Part = Literal["train", "valid", "test"]
PARTS: Final[tuple[Part, ...]] = ("train", "valid", "test")

USER: Final = "user_id"
ITEM: Final = "item_id"
TIMESTAMP: Final = "timestamp"
RATING: Final = "rating"
SPLIT: Final = "split"
TITLE: Final = "title"
CATEGORY: Final = "category"  # list of names; only where the settings name a column of categories

POSITION: Final = "position"  # order of an interaction within its user, from 0
ITEM_INDEX: Final = "item_index"  # internal id, from 1; 0 is padding
TRAIN_COUNT: Final = "train_count"  # training interactions of an item

SAMPLE: Final = "sample_id"
HISTORY: Final = "history"  # list of item ids, oldest first
TARGET: Final = "target"  # item id

INFLUENCE: Final = "influence"
EFFORT: Final = "effort"
NORM: Final = "norm"  # gradient norm of the mean loss per target token
TOKENS: Final = "tokens"  # target tokens
OVERALL: Final = "overall"
STRATUM: Final = "stratum"
RANK: Final = "rank"

LOW: Final = "low"  # a stratum's ends, and how many samples it holds and gives
HIGH: Final = "high"
CANDIDATES: Final = "candidates"
KEPT: Final = "kept"

SHARE: Final = "share"  # of the units that a retraining keeps
SUBSET: Final = "subset"
SEED: Final = "seed"
PART: Final = "part"
GROUP: Final = "group"  # of users
RISK: Final = "risk"
ARM: Final = "arm"
PARAMETERS: Final = "parameters"
SOLVER: Final = "solver"

EPOCH: Final = "epoch"
TRAIN_LOSS: Final = "train_loss"
VALID_NDCG: Final = "valid_ndcg"
VALID_MRR: Final = "valid_mrr"  # mean reciprocal rank
LOSS: Final = "loss"
GENERATED: Final = "generated"  # title that the LLM wrote
