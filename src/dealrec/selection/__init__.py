"""Which samples to fine-tune on, given their scores."""

from dealrec.selection.best_share import best_share_sample
from dealrec.selection.coverage import assign_strata, budget_count, coverage_sample, stratum_edges, without_hardest
from dealrec.selection.quota import banded_quota_sample, quota_sample
from dealrec.selection.ranks import mean_rank
from dealrec.selection.scores import combine_scores

__all__ = [
    "assign_strata",
    "banded_quota_sample",
    "best_share_sample",
    "budget_count",
    "combine_scores",
    "coverage_sample",
    "mean_rank",
    "quota_sample",
    "stratum_edges",
    "without_hardest",
]
