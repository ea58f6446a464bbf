"""Lines of answers: nothing is lost on the way to the file and back, and a file that is right is
left alone.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import characters, integers, none, text

from reasontrain.evaluation.answers import Answer, Reply, from_line, write_answers
from reasontrain.tasks import Verdict
from reasontrain.types import Problem

PROBLEM = Problem(
    id="p1",
    prompt=({"role": "system", "content": "s"}, {"role": "user", "content": "What?"}),
    answer="7",
)
ANY = text(characters(exclude_categories=["Cs"]))


def answer(said: str = "7", sample: int = 0, tokens: int | None = 3, reasoning: str = "") -> Answer:
    reply = Reply(text=said, truncated=False, num_tokens=tokens, reasoning=reasoning)
    return Answer(
        problem=PROBLEM, sample=sample, reply=reply, verdict=Verdict(True, said[:3], "exact")
    )


@given(said=ANY, reasoning=ANY, tokens=none() | integers(0, 10**6))
def test_a_line_is_read_back_as_it_was(said: str, reasoning: str, tokens: int | None) -> None:
    whole = answer(said, 4, tokens, reasoning)
    line = whole.line()
    assert line.count("\n") == 1
    assert from_line(json.loads(line), {"p1": PROBLEM}) == whole


def test_a_line_says_what_was_asked_and_a_thought_only_where_there_is_one() -> None:
    row = json.loads(answer().line())
    assert (row["question"], row["gold"], row["response"], row["tokens"]) == ("What?", "7", "7", 3)
    assert "reasoning" not in row
    assert json.loads(answer(reasoning="hm").line())["reasoning"] == "hm"


@pytest.mark.parametrize("change", [{"problem": "p2"}, {"sample": "0"}, {"tokens": 1.5}])
def test_a_line_of_something_else_is_none(change: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError)):
        from_line(json.loads(answer().line()) | change, {"p1": PROBLEM})


def test_a_file_that_holds_just_this_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "x.jsonl"
    write_answers(path, [answer("1"), answer("2", 1)])
    first = path.stat()
    write_answers(path, [answer("1"), answer("2", 1)])
    assert path.stat().st_ino == first.st_ino
    write_answers(path, [answer("2", 1), answer("1")])
    assert [json.loads(line)["sample"] for line in path.read_text().splitlines()] == [1, 0]
