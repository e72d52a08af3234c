"""What a run would do, how long it would take and what it would hold, before it is run: stages are run in small."""

from dealrec.estimates.dry_run import estimate
from dealrec.estimates.results import Estimate, Estimates, Plan

__all__ = ["Estimate", "Estimates", "Plan", "estimate"]
