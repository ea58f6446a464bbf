"""The report of a run directory: `report.json` and `report.html`.

The page opens from disk and loads no other file.
"""

from reasontrain.report.build import write_report

__all__ = ["write_report"]
