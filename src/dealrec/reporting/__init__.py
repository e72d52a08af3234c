"""The report: one self-contained HTML page."""

from dealrec.reporting.page import rewrite_report, write_report
from dealrec.reporting.two_runs import write_comparison

__all__ = ["rewrite_report", "write_comparison", "write_report"]
