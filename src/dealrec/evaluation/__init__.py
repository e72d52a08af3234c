"""How good recommendations are, and how sure one can be of it."""

from dealrec.evaluation.catalogue import catalogue_metrics
from dealrec.evaluation.comparison import Comparison, compare_arms, paired_differences
from dealrec.evaluation.permutation import PermutationTest, label_test, sign_flip_test
from dealrec.evaluation.ranking import ranking_metrics
from dealrec.evaluation.significance import Interval, bootstrap_crossed, bootstrap_mean, verdict

__all__ = [
    "Comparison",
    "Interval",
    "PermutationTest",
    "bootstrap_crossed",
    "bootstrap_mean",
    "catalogue_metrics",
    "compare_arms",
    "label_test",
    "paired_differences",
    "ranking_metrics",
    "sign_flip_test",
    "verdict",
]
