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

# Of training rows of the user's own (data.format: rows): which of them a sample has, and what one is trained on.
ROWS: Final = "rows"  # list of row numbers, of a sample
ROW: Final = "row"  # number of a row, from 0, over training, validation and test rows
ROW_ID: Final = "row_id"  # the user's id of it, as text
PROMPT: Final = "prompt"
COMPLETION: Final = "completion"
MESSAGES: Final = "messages"  # list of role, content, and whether it is learnt
INPUT_IDS: Final = "input_ids"
LABELS: Final = "labels"

INFLUENCE: Final = "influence"
EFFORT: Final = "effort"
LOSS: Final = "loss"
LOG_RANK: Final = "log_rank"  # natural logarithm of the target's rank among all items that may be recommended
LOWER_IS_BETTER: Final = frozenset({LOSS, LOG_RANK})  # of what is measured of a user
NORM: Final = "norm"  # gradient norm of the mean loss per target token
TOKENS: Final = "tokens"  # target tokens
LENGTH: Final = "length"  # tokens of a sample, those that the recommender reads before the target too
OVERALL: Final = "overall"

# Signals of a sample beside influence and effort, as methods of selection read them.
HISTORY_LENGTH: Final = "history_length"  # items of the history
TRAIN_SHARE: Final = "train_share"  # the share of the training samples that have this target
VALID_SHARE: Final = "valid_share"  # the share of the validation samples that have this target
LOSS_DROP: Final = "loss_drop"  # of the recommender: loss before less loss after a moment's tuning on validation
ALIGNMENT: Final = "alignment"  # of the recommender: product of a sample's gradient with that of validation
SURROGATE_LOSS: Final = "surrogate_loss"
SURROGATE_LOSS_DROP: Final = "surrogate_loss_drop"
SURROGATE_ERROR: Final = "surrogate_error"  # norm of prediction less target (EL2N)
SURROGATE_STATE: Final = "surrogate_state"  # the vector that scores the target
TITLE_EMBEDDING: Final = "title_embedding"  # of an item
TEXT_EMBEDDING: Final = "text_embedding"  # of the titles of target and history
TARGET_CLUSTER: Final = "target_cluster"  # of the targets whose titles are alike, a number
CLUSTER_SHARE: Final = "cluster_share"  # the share of the validation samples whose targets are of this cluster

# Which signals follow from the data; which are of titles, of all samples and those of validation too; which are of the
# surrogate, of all samples, and which of the recommender, of the pool. All but the data's come from stages, named so.
OF_DATA: Final = (USER, HISTORY, TARGET, TIMESTAMP, HISTORY_LENGTH, TRAIN_SHARE, VALID_SHARE)
OF_TEXT: Final = (TEXT_EMBEDDING, TARGET_CLUSTER, CLUSTER_SHARE)
OF_SURROGATE: Final = (INFLUENCE, SURROGATE_LOSS, SURROGATE_LOSS_DROP, SURROGATE_ERROR, SURROGATE_STATE)
OF_RECOMMENDER: Final = (LOSS, EFFORT, LOSS_DROP, ALIGNMENT)

SCORE: Final = "score"  # what a method of selection ranked a sample by, and why it took it
REASON: Final = "reason"

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

LABEL_TOKENS: Final = "label_tokens"
SEGMENT: Final = "segment"  # of test users
SIZE: Final = "size"  # samples that an arm was trained on
METHOD: Final = "method"
REPLICATE: Final = "replicate"
TRAINING: Final = "training"

EPOCH: Final = "epoch"
TRAIN_LOSS: Final = "train_loss"
VALID_NDCG: Final = "valid_ndcg"
VALID_MRR: Final = "valid_mrr"  # mean reciprocal rank
GENERATED: Final = "generated"  # title that the LLM wrote
