"""What the stages need of a recommender. A third one is a folder beside bigrec and tiger with a class that has this."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dealrec.columns import Id
from dealrec.sequences.batches import Encoded

Watch = Callable[[list[list[int]]], Iterable[list[int]]]  # hands the batches on, showing progress


@dataclass(frozen=True)
class EncodedRow:
    """cut: whether the row was longer than may be."""

    tokens: Encoded
    cut: bool = False


@dataclass(frozen=True)
class Recommended:
    """items: at most k item ids, the best first. written: what the model wrote, for people to read.

    target_rank: the target's rank, from 1, among all items that may be recommended; None where it was not asked for.
    """

    items: list[Id]
    written: str
    target_rank: int | None = None


class Recommender(Protocol):
    """model: a transformers model; the parameters that require grad are those that are scored and trained."""

    model: Any
    pad_id: int

    def encode(self, history: Sequence[Id], target: Id) -> Encoded:
        """A sample as the tokens that the model reads and the labels that it should write."""
        ...

    def recommend(
        self,
        histories: Sequence[Sequence[Id]],
        *,
        seen: Sequence[Sequence[Id]],
        k: int,
        beams: int,
        batch_size: int,
        targets: Sequence[Id | None] | None = None,
        watch: Watch = iter,
    ) -> list[Recommended]:
        """Items of the whole catalogue for each history, without those that are `seen`.

        targets: items whose exact ranks are wanted; one that is None, seen or unknown is behind all others. No result
        depends on batch_size, which counts histories. watch: called once.
        """
        ...


class RowReader(Recommender, Protocol):
    """A recommender that reads text, and so training rows of the user's own too."""

    def encode_row(self, row: Mapping[str, Any]) -> EncodedRow:
        """A training row of the user's own as tokens.

        row: row_id, and one of prompt and completion, messages (role, content, learnt), input_ids and labels.
        """
        ...
