"""dealrec: finds the few training samples on which an LLM recommender is worth fine-tuning.

`prune` does the whole job; the maths is in `dealrec.influence`, `dealrec.effort`, `dealrec.selection` and
`dealrec.evaluation`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dealrec.api.prune import Pruned, prune
    from dealrec.errors import DealrecError

__all__ = ["DealrecError", "Pruned", "prune"]


def __getattr__(name: str) -> Any:
    # Imported on first use, so that the command line starts without what `prune` needs.
    if name not in __all__:
        raise AttributeError(f"module 'dealrec' has no attribute {name!r}")
    from dealrec import errors
    from dealrec.api import prune

    return getattr(errors if name == "DealrecError" else prune, name)
