"""How good recommendations are, and how sure one can be of it."""

from dealrec.evaluation.catalogue import catalogue_metrics
from dealrec.evaluation.comparison import Comparison, compare_arms, paired_differences
from dealrec.evaluation.crossed import crossed_interval
from dealrec.evaluation.equivalents import (
    Equivalent,
    EquivalentInterval,
    equivalent_interval,
    holm,
    p_over_replicates,
    random_equivalent,
    replicates_to_settle,
)
from dealrec.evaluation.permutation import PermutationTest, label_test, sign_flip_test
from dealrec.evaluation.ranking import ranking_metrics
from dealrec.evaluation.significance import Interval, bootstrap_crossed, bootstrap_mean, verdict

__all__ = [
    "Comparison",
    "Equivalent",
    "EquivalentInterval",
    "Interval",
    "PermutationTest",
    "bootstrap_crossed",
    "bootstrap_mean",
    "catalogue_metrics",
    "compare_arms",
    "crossed_interval",
    "equivalent_interval",
    "holm",
    "label_test",
    "p_over_replicates",
    "paired_differences",
    "random_equivalent",
    "ranking_metrics",
    "replicates_to_settle",
    "sign_flip_test",
    "verdict",
]
