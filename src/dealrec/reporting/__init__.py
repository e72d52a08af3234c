"""The report: one self-contained HTML page."""

from dealrec.reporting.page import write_report

__all__ = ["write_report"]
