"""DEALRec: influence and effort, every stratum of their sum covered (Lin et al., SIGIR 2024, arXiv 2401.17197)."""

import polars as pl
import torch

from dealrec.columns import EFFORT, INFLUENCE
from dealrec.selection import assign_strata, combine_scores, coverage_sample, without_hardest
from dealrec.selection.methods.method import selection

SIGNALS = (INFLUENCE, EFFORT)


def select(
    signals: pl.DataFrame,
    budget: int,
    generator: torch.Generator,
    *,
    effort_weight: float = 0.3,
    strata: int = 50,
    hard_prune: float = 0.0,
) -> pl.DataFrame:
    """The overall score (Eq. 13), spread over its strata (Algorithm 2).

    effort_weight: lambda. strata: K. hard_prune: the share of the highest scores that is dropped first, as the
    published code does.
    """
    influence, effort = signals[INFLUENCE].to_torch(), signals[EFFORT].to_torch()
    overall = combine_scores(influence, effort, effort_weight=effort_weight)
    kept = without_hardest(overall, share=hard_prune)
    places = coverage_sample(overall[kept], budget, strata=strata, generator=generator)
    of_stratum = assign_strata(overall[kept], strata=strata)[places].tolist()
    return selection(signals, kept[places], overall, [f"stratum {stratum}" for stratum in of_stratum])
