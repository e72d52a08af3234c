"""dealrec: finds the few training samples on which an LLM recommender is worth fine-tuning.

`prune` does the whole job; the maths is in `dealrec.influence`, `dealrec.effort`, `dealrec.selection` and
`dealrec.evaluation`.
"""

from dealrec.api import Pruned, prune
from dealrec.errors import DealrecError

__all__ = ["DealrecError", "Pruned", "prune"]
