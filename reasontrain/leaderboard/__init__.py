"""Runs and reports become a folder of pages that open from disk, and the same figures as Markdown,
CSV, JSON and model cards.
"""

from reasontrain.leaderboard.site import write_leaderboard

__all__ = ["write_leaderboard"]
