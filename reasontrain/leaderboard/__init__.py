"""The leaderboard of runs and reports: pages that open from disk, and the figures as Markdown, CSV,
JSON and model cards.
"""

from reasontrain.leaderboard.site import write_leaderboard

__all__ = ["write_leaderboard"]
