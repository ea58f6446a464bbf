"""The verifier of all rewards and evaluations: `Grader`, which returns a `Verdict`."""

from __future__ import annotations

from reasontrain.tasks.grading.extract import AnswerFormat, last_boxed
from reasontrain.tasks.grading.grader import Grader, GradeRequest, check_gold
from reasontrain.tasks.grading.normalise import spelling
from reasontrain.tasks.grading.verdict import UNFINISHED, Verdict

__all__ = [
    "UNFINISHED",
    "AnswerFormat",
    "GradeRequest",
    "Grader",
    "Verdict",
    "check_gold",
    "last_boxed",
    "spelling",
]
