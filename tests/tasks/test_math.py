"""MATH with an answer column, and with nothing but a boxed solution."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasontrain.tasks.math import MathTask, split_answer
from reasontrain.types import UserError


def test_gold_is_the_answer_or_else_the_last_box() -> None:
    assert split_answer(r" \frac{1}{2} ", r"\boxed{3}") == (r"\frac{1}{2}", r"\boxed{3}")
    assert split_answer("", r"\boxed{1}, no: \boxed{\frac{1}{2}}.") == (r"\frac{1}{2}", r"\boxed{1}, no: \boxed{\frac{1}{2}}.")


def test_a_solution_without_a_box_has_no_gold(tmp_path: Path) -> None:
    path = tmp_path / "math.jsonl"
    path.write_text("".join(json.dumps({"problem": "?", "solution": solution}) + "\n" for solution in (r"\boxed{2}", "two")))
    assert MathTask(path=str(path), limit=1).problems()[0].answer == "2"
    with pytest.raises(UserError, match=r"math\.jsonl, line 2: no gold answer in column 'solution'"):
        MathTask(path=str(path)).problems()
