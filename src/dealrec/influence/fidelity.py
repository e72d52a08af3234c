"""Does influence predict retraining? The linear datamodelling score and the most that noise lets it be.

Park et al. (TRAK, ICML 2023): train again on random subsets, predict each subset's risk by adding up the influence of
what it lacks, and correlate predicted with actual risk over the subsets. Here the risk is that of a group of users,
and the correlation is averaged over the groups, so that few subsets suffice.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """A mean rank correlation with the ends of its interval."""

    mean: float
    low: float
    high: float


def draw_subset(n: int, *, share: float, seed: int) -> Tensor:
    """Which of n units are kept: `round(share n)` of them, at least one; indices in ascending order."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(n, generator=generator)[: max(1, round(share * n))].sort().values


def predicted_risks(influence: Tensor, kept: list[Tensor]) -> Tensor:
    """The change of each group's risk that the scores predict for each subset: [subsets, groups].

    influence: [n, groups], each unit's influence on each group's risk, positive = helps. kept: the units of each
    subset. To first order, removing units raises the risk by the sum of their influence.
    """
    total = influence.sum(0)
    return torch.stack([total - influence[index].sum(0) for index in kept])


def datamodelling_score(predicted: Array, actual: Array) -> float:
    """Mean over the groups of Spearman's correlation over the subsets; both [subsets, groups].

    A group whose predicted or actual risks are all equal counts as 0: nothing is predicted there.
    """
    left, right = _standardised_ranks(predicted), _standardised_ranks(actual)
    return float((left * right).mean(0).mean())


def score_interval(
    predicted: Array, actual: Array, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Score:
    """The score with a percentile bootstrap interval over the subsets."""
    generator = np.random.default_rng(seed)
    indices = generator.integers(len(predicted), size=(resamples, len(predicted)))
    scores = [datamodelling_score(predicted[index], actual[index]) for index in indices]
    low, high = np.quantile(scores, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Score(datamodelling_score(predicted, actual), float(low), float(high))


def noise_ceiling(actual: Array) -> float:
    """The score that the subsets' true mean risk would get, from repeated trainings: actual [seeds, subsets, groups].

    Each group's risks are averaged over the seeds before they are compared with a prediction. The reliability of that
    average follows from the mean correlation r between two seeds (Spearman-Brown: k r / (1 + (k - 1) r)), and a
    perfect prediction of the noiseless risk correlates with it by the root of the reliability.
    """
    seeds = len(actual)
    if seeds < 2:
        raise ValueError("the noise between retrainings needs at least two seeds per subset")
    pairs = [datamodelling_score(first, second) for first, second in combinations(actual, 2)]
    correlation = max(0.0, float(np.mean(pairs)))
    return float(np.sqrt(seeds * correlation / (1 + (seeds - 1) * correlation)))


def _standardised_ranks(values: Array) -> Array:
    """Ranks down each column, with mean 0 and variance 1; zeros for a constant column."""
    ranks = rankdata(values, axis=0)
    centred = ranks - ranks.mean(0)
    deviation = centred.std(0)
    scaled: Array = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)
    return scaled
