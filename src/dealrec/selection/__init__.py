"""Which samples to fine-tune on, given their scores."""

from dealrec.selection.coverage import assign_strata, budget_count, coverage_sample, stratum_edges, without_hardest
from dealrec.selection.scores import combine_scores

__all__ = ["assign_strata", "budget_count", "combine_scores", "coverage_sample", "stratum_edges", "without_hardest"]
