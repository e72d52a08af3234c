"""The report: one self-contained HTML page."""

from dealrec.reporting.comparing import write_comparison
from dealrec.reporting.page import rewrite_report, write_report

__all__ = ["rewrite_report", "write_comparison", "write_report"]
