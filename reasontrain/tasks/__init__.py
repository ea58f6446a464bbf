"""Tasks: problems, and the grading of responses to them.

Every task is a `Task`: it lists its problems, grades responses (most by the common verifier in
`grading`) and names its held-out split.
"""

from __future__ import annotations

from reasontrain.tasks.arithmetic import Arithmetic
from reasontrain.tasks.episodes import grade_episodes
from reasontrain.tasks.grading import AnswerFormat, Grader, GradeRequest, Verdict, check_gold
from reasontrain.tasks.gsm8k import Gsm8k
from reasontrain.tasks.images import ImageTask
from reasontrain.tasks.math import MathTask
from reasontrain.tasks.offline import OfflineTask, PairTask, RolloutTask
from reasontrain.tasks.python import PythonTask
from reasontrain.tasks.reward import Reward
from reasontrain.tasks.task import Response, Scored, Task

__all__ = [
    "AnswerFormat",
    "Arithmetic",
    "GradeRequest",
    "Grader",
    "Gsm8k",
    "ImageTask",
    "MathTask",
    "OfflineTask",
    "PairTask",
    "PythonTask",
    "Response",
    "Reward",
    "RolloutTask",
    "Scored",
    "Task",
    "TaskSettings",
    "Verdict",
    "check_gold",
    "grade_episodes",
]

TaskSettings = Arithmetic | Gsm8k | MathTask | ImageTask | PythonTask | PairTask | RolloutTask
"""The settings allowed under `task` in a recipe; `kind` selects the class."""
