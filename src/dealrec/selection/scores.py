"""The overall score (Eq. 13 of DEALRec)."""

import torch
from torch import Tensor

from dealrec.errors import NonFinite


def combine_scores(influence: Tensor, effort: Tensor, *, effort_weight: float) -> Tensor:
    """scaled influence + effort_weight * scaled effort: [n], float64, in [0, 1 + effort_weight].

    Both are min-max scaled first; without that the weight would have no meaning, since the two differ
    by orders of magnitude. A constant score scales to 0. Raises NonFinite on NaN or infinity.

    >>> combine_scores(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([5.0, 5.0, 7.0]), effort_weight=0.5)
    tensor([0.0000, 0.5000, 1.5000], dtype=torch.float64)
    """
    if influence.shape != effort.shape or influence.dim() != 1:
        raise ValueError(f"influence {tuple(influence.shape)} and effort {tuple(effort.shape)} must be [n] both")
    return _min_max(influence, "influence") + effort_weight * _min_max(effort, "effort")


def _min_max(scores: Tensor, name: str) -> Tensor:
    scores = scores.double()
    require_finite(scores, name)
    low, high = scores.aminmax() if len(scores) else (scores.new_zeros(()), scores.new_zeros(()))
    if high == low:
        return torch.zeros_like(scores)
    if torch.isinf(high - low):  # the scores span more than the largest float
        scores, low, high = scores / 2, low / 2, high / 2
    return (scores - low) / (high - low)


def require_finite(scores: Tensor, name: str) -> None:
    """Raise NonFinite, with the first bad positions, unless all scores are finite."""
    bad = (~torch.isfinite(scores)).nonzero().flatten()
    if len(bad):
        where = ", ".join(str(int(i)) for i in bad[:5])
        raise NonFinite(
            f"select: {name} is NaN or infinite at positions {where} ({len(bad)} of {len(scores)})",
            "Run the stage that scored it again; a diverged solver or a corrupt model is the likely cause.",
        )
