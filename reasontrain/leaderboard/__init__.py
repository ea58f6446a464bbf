"""The leaderboard of runs and reports, as static pages, Markdown, CSV, JSON and model cards.

The pages open from disk.
"""

from reasontrain.leaderboard.site import write_leaderboard

__all__ = ["write_leaderboard"]
