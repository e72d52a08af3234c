"""Influence of each training sample on the risk, by Hessian-vector products."""

from dealrec.influence.arnoldi import Arnoldi
from dealrec.influence.cg import CG
from dealrec.influence.ekfac import EKFAC
from dealrec.influence.exact import Exact
from dealrec.influence.hvp import directional_scores
from dealrec.influence.identity import Identity
from dealrec.influence.lissa import LiSSA
from dealrec.influence.scores import Influence, influence, influence_scores
from dealrec.influence.solvers import Solution, inverse_hvp

__all__ = [
    "CG",
    "EKFAC",
    "Arnoldi",
    "Exact",
    "Identity",
    "Influence",
    "LiSSA",
    "Solution",
    "directional_scores",
    "influence",
    "influence_scores",
    "inverse_hvp",
]
