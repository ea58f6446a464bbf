"""From a run directory to `report.json` and a page, `report.html`, that opens from disk and asks
nobody for anything.
"""

from reasontrain.report.build import write_report

__all__ = ["write_report"]
