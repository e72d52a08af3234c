"""What a run would do, how long it would take and what it would hold, before it is run: small pieces are measured."""

from dealrec.estimates.estimating import estimate
from dealrec.estimates.planning import Plan
from dealrec.estimates.results import Estimate, Estimates

__all__ = ["Estimate", "Estimates", "Plan", "estimate"]
