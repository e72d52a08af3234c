"""Influence of each training sample on the risk, by Hessian-vector products."""

from dealrec.influence.hvp import directional_scores
from dealrec.influence.scores import Influence, influence, influence_scores
from dealrec.influence.solvers import CG, Exact, LiSSA, Solution, inverse_hvp

__all__ = [
    "CG",
    "Exact",
    "Influence",
    "LiSSA",
    "Solution",
    "directional_scores",
    "influence",
    "influence_scores",
    "inverse_hvp",
]
