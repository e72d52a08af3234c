"""A uniform draw among the best."""

import math

import torch
from torch import Tensor

from dealrec.selection.scores import require_finite


def best_share_sample(
    scores: Tensor, budget: int, *, share: float = 0.1, seed: int = 0, generator: torch.Generator | None = None
) -> Tensor:
    """Indices of exactly min(budget, n) samples, the best first: drawn uniformly among the best `share` of the scores.

    scores: [n], finite; of equal ones the lower index is the better. Where the share holds fewer than the budget, the
    draw is among as many as that. The draw follows from the seed, or from the generator.

    >>> best_share_sample(torch.arange(20.0), 2, share=0.1)
    tensor([19, 18])
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, not {share}")
    require_finite(scores, "the score")
    count = max(0, min(budget, len(scores)))
    best = scores.double().argsort(descending=True, stable=True)[: max(count, math.ceil(share * len(scores) - 1e-9))]
    drawn = torch.randperm(len(best), generator=generator or torch.Generator().manual_seed(seed))[:count]
    return best[drawn.sort().values]
