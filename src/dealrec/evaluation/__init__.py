"""How good recommendations are, and how sure one can be of it."""

from dealrec.evaluation.ranking import ranking_metrics
from dealrec.evaluation.significance import Interval, bootstrap_mean, verdict

__all__ = ["Interval", "bootstrap_mean", "ranking_metrics", "verdict"]
