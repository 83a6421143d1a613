"""A run as one HTML file that needs no network: tables, plots, and the samples themselves."""

from vlmkit.experiment.report.chosen import Limits, report_samples
from vlmkit.experiment.report.page import report_html, write_report

__all__ = ["Limits", "report_html", "report_samples", "write_report"]
