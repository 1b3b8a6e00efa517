"""The report: one self-contained HTML page."""

from adamas.compare.report.page import write_report

__all__ = ["write_report"]
