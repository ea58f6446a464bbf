"""Stages before a run: sample and grade solutions, choose pairs, tune models, score tokens."""

from reasontrain.stages.run import done, link
from reasontrain.stages.teacher import score_teacher

__all__ = ["done", "link", "score_teacher"]
