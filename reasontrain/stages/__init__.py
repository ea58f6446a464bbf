"""Stages before a run: sample and grade solutions, choose pairs, tune models, score tokens."""

from reasontrain.stages.run import done, link

__all__ = ["done", "link"]
