"""Coverage-enhanced stratified sampling (Algorithm 2 of DEALRec, after CCS, Zheng et al., ICLR 2023)."""

import torch
from torch import Tensor

from dealrec.selection.scores import require_finite


def assign_strata(scores: Tensor, *, strata: int) -> Tensor:
    """Stratum of each score: [n], int64 in 0 .. strata - 1.

    The range of the scores is cut into `strata` intervals of equal width, [low, high), the last one closed,
    so the top score always has a stratum. Equal scores share one; if all are equal, it is stratum 0.

    >>> assign_strata(torch.tensor([0.0, 0.4, 0.5, 1.0]), strata=2)
    tensor([0, 0, 1, 1])
    """
    if strata < 1:
        raise ValueError(f"strata must be at least 1, not {strata}")
    scores = scores.double()
    require_finite(scores, "the score")
    if not len(scores):
        return torch.zeros(0, dtype=torch.int64)
    edges = stratum_edges(scores, strata=strata)
    if bool((scores == scores[0]).all()):
        return torch.zeros(len(scores), dtype=torch.int64)
    # The inner edges alone: a score below the first is in stratum 0, one at an edge in the stratum above.
    return torch.bucketize(scores, edges[1:-1], right=True)


def stratum_edges(scores: Tensor, *, strata: int) -> Tensor:
    """The strata + 1 edges of the strata, ascending, float64."""
    low, high = (float(end) for end in scores.double().aminmax())
    shares = torch.arange(strata + 1, dtype=torch.float64) / strata
    if low == high:  # [low, low + 1): all in stratum 0
        return low + shares
    # Rounding may put an edge of a tiny range outside it, or below the one before.
    return (low * (1 - shares) + high * shares).clamp(low, high).cummax(0).values


def without_hardest(scores: Tensor, *, share: float) -> Tensor:
    """Indices of all but the `floor(share n)` highest scores, ascending; of equal scores the later ones go first.

    The hard pruning of CCS, there for mislabelled samples.

    >>> without_hardest(torch.tensor([3.0, 1.0, 2.0, 5.0]), share=0.25)
    tensor([0, 1, 2])
    """
    return scores.argsort(stable=True)[: count_without_hardest(len(scores), share=share)].sort().values


def count_without_hardest(n: int, *, share: float) -> int:
    """How many of n `without_hardest` keeps: n less floor(share n)."""
    return n - int(share * n + 1e-9)


def coverage_sample(
    scores: Tensor,
    budget: int | float,
    *,
    strata: int = 50,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Indices of exactly min(budget, n) samples that cover the range of the scores: ascending, int64.

    scores: [n], finite. budget: a count if an int, a share of n if a float. Strata are visited from the
    smallest to the largest; each gives min(B, its size) of its samples, drawn without replacement, where
    B = floor(budget left / strata left). So a small stratum is kept whole and what it cannot use goes to
    the larger ones. The visiting order of strata of one size, and the draws, follow from the seed, or from the
    generator.

    >>> coverage_sample(torch.tensor([0.0, 0.01, 0.02, 0.03, 1.0]), 2, strata=10)  # the outlier is kept
    tensor([3, 4])
    """
    count = budget_count(budget, len(scores))
    stratum_of = assign_strata(scores, strata=strata)
    members = [(stratum_of == stratum).nonzero().flatten() for stratum in stratum_of.unique().tolist()]
    generator = generator or torch.Generator().manual_seed(seed)
    # Those visited first get what rounding down leaves, which may be nothing: among strata of one size chance decides,
    # or a budget below the number of strata would go to the highest scores alone.
    members = [members[place] for place in torch.randperm(len(members), generator=generator).tolist()]
    members.sort(key=len)
    parts: list[Tensor] = []
    remaining = count
    for number, stratum in enumerate(members):
        share = min(remaining // (len(members) - number), len(stratum))
        order = torch.randperm(len(stratum), generator=generator)
        parts.append(stratum[order[:share]])
        remaining -= share
    sample = torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)
    return sample.sort().values


def budget_count(budget: int | float, n: int) -> int:
    """Samples that a budget means of n: an int counts, a float is a share (rounded down, at least 1); at most n.

    >>> budget_count(10, 100), budget_count(0.02, 1000), budget_count(1000, 100), budget_count(0.001, 100)
    (10, 20, 100, 1)
    """
    if budget < 0:
        raise ValueError(f"budget must not be negative: {budget}")
    if isinstance(budget, float) and budget > 0:
        # A share such as 0.29 of 100 is meant as 29, though 0.29 * 100 is 28.999999999999996.
        return min(n, max(1, int(budget * n + 1e-9)))
    return min(n, int(budget))
