"""The verifier of all rewards and evaluations: `Grader`, which returns a `Verdict`."""

from __future__ import annotations

from reasontrain.tasks.grading.extract import AnswerFormat, last_boxed
from reasontrain.tasks.grading.grader import Grader, GradeRequest, check_gold
from reasontrain.tasks.grading.verdict import UNFINISHED, Verdict
from reasontrain.tasks.grading.votes import Vote, group_votes

__all__ = [
    "UNFINISHED",
    "AnswerFormat",
    "GradeRequest",
    "Grader",
    "Verdict",
    "Vote",
    "check_gold",
    "group_votes",
    "last_boxed",
]
