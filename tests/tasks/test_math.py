"""MATH with an answer column, and with nothing but a boxed solution."""

from __future__ import annotations

import json
from pathlib import Path

from reasontrain.tasks.math import MathTask, split_answer


def test_gold_is_the_answer_or_else_the_last_box() -> None:
    assert split_answer(r" \frac{1}{2} ", r"\boxed{3}") == (r"\frac{1}{2}", r"\boxed{3}")
    assert split_answer("", r"\boxed{1}, no: \boxed{\frac{1}{2}}.") == (
        r"\frac{1}{2}",
        r"\boxed{1}, no: \boxed{\frac{1}{2}}.",
    )


def test_a_solution_without_a_box_has_no_gold(tmp_path: Path) -> None:
    path = tmp_path / "math.jsonl"
    path.write_text(
        "".join(
            json.dumps({"problem": "?", "solution": solution}) + "\n"
            for solution in (r"\boxed{2}", "two")
        )
    )
    assert [
        (problem.answer, problem.solution) for problem in MathTask(path=str(path)).problems()
    ] == [
        ("2", r"\boxed{2}"),
        ("", "two"),
    ]


def test_prompts_alone_have_no_gold(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": "2+2?"}))
    (problem,) = MathTask(path=str(path), instruction="").problems()
    assert (problem.prompt, problem.answer, problem.solution) == ("2+2?", "", "")
