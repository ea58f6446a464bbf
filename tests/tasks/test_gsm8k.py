"""GSM8K as our own files write it and as the hub does."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from reasontrain.tasks.grading.gold_mark import marked_gold
from reasontrain.tasks.grading.grader import read_gold
from reasontrain.tasks.gsm8k import Gsm8k, split_answer
from reasontrain.tasks.math import split_answer as math_gold
from reasontrain.tasks.problems import BOXED


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (("18", "2 * 9 = 18\n#### 18"), ("18", "2 * 9 = 18\n#### 18")),
        (("2 * 9 = 18\n#### 1,018", ""), ("1018", "2 * 9 = 18\n#### 1,018")),
        (("", "so\n#### -5"), ("-5", "so\n#### -5")),
        (("", "It is -5."), ("", "It is -5.")),  # a text without the mark is no answer
        (("", ""), ("", "")),
    ],
)
def test_gold_and_solution(cells: tuple[str, str], expected: tuple[str, str]) -> None:
    assert split_answer(*cells) == expected


def test_problems_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "gsm8k.jsonl"
    path.write_text(
        "".join(
            json.dumps(
                {"id": f"t/{i}", "problem": f"{i}+{i}?", "answer": str(2 * i), "solution": "#### x"}
            )
            + "\n"
            for i in range(3)
        )
    )
    problems = Gsm8k(path=str(path), limit=2).problems()
    assert [(problem.id, problem.prompt, problem.answer) for problem in problems] == [
        ("t/0", f"0+0?\n{BOXED}", "0"),
        ("t/1", f"1+1?\n{BOXED}", "2"),
    ]


def test_a_conversation_needs_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    turns = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "It is 4."}]
    path.write_text(json.dumps({"messages": turns}))
    (problem,) = Gsm8k(path=str(path), instruction="").problems()
    assert (problem.prompt, problem.answer, problem.solution) == ((turns[0],), "", "It is 4.")


def test_the_hub_is_asked_where_no_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(hub: str, subset: str | None, *, split: str, revision: str | None) -> datasets.Dataset:
        assert (hub, subset, split) == ("openai/gsm8k", "main", "test")
        return datasets.Dataset.from_list([{"question": "2+2?", "answer": "Add.\n#### 4"}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    (problem,) = Gsm8k(split="test", instruction="").problems()
    assert (problem.prompt, problem.answer, problem.solution) == ("2+2?", "4", "Add.\n#### 4")


@pytest.mark.parametrize(
    ("cell", "gold"),
    [
        ("#### 7", "7"),
        ("2+3=<<2+3=5>>5\n#### 5", "5"),
        ("so #### 1,234", "1234"),
        ("x\n#### -1/2\n", "-1/2"),
        ("x\n#### 7\nThat is all.", "7"),
        ("#### Reasoning\n20 plus 22 is 42.\n\n**Final Answer:** 42", None),
        ("(1, 2)", None),
        ("####", None),
    ],
)
def test_a_mark_in_a_gold_cell(cell: str, gold: str | None) -> None:
    assert marked_gold(cell) == gold
    assert split_answer(cell, "")[0] == (cell.strip() if gold is None else gold)
    if gold is not None:
        assert math_gold(cell, "")[0] == gold


def test_the_verifier_reads_the_mark_too() -> None:
    assert [read_gold(cell) for cell in ("#### 7", "2+3=<<2+3=5>>5\n#### 5")] == ["7", "5"]
