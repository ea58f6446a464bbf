"""The report of a run directory: `report.json`, and `report.html`, a page that opens from disk and
loads nothing.
"""

from reasontrain.report.build import write_report

__all__ = ["write_report"]
