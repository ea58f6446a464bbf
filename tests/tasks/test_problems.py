"""Rows become problems: columns by their usual or given names, the instruction, conversations, and
what is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from reasontrain.data.files import BadRows, Columns, OnBadRow, Row, Source, Table, refuse
from reasontrain.tasks.problems import GeneratedProblems, problems_of
from reasontrain.types import Problem, UserError

USUAL = Columns()


@dataclass(frozen=True, kw_only=True)
class InMemory(Source):
    """A source of rows that are in no file."""

    rows: tuple[Row, ...]

    def table(self, on_bad_row: OnBadRow = refuse) -> Table:
        return Table(source="x.jsonl", rows=self.rows, lines=range(1, len(self.rows) + 1))


def read(
    *rows: Row,
    columns: Columns = USUAL,
    instruction: str | None = None,
    bad_rows: BadRows = "refuse",
) -> list[Problem]:
    """The problems of rows, without their places."""
    problems = problems_of(
        InMemory(rows=rows, columns=columns, bad_rows=bad_rows),
        instruction=instruction,
        default_instruction="",
        split=lambda answer, solution: (answer, solution),
    )
    return [replace(problem, source="") for problem in problems]


def test_usual_columns_and_the_rest_is_about() -> None:
    row = {
        "id": "m/1",
        "problem": "2+2?",
        "answer": 4,
        "solution": "Add.",
        "level": 5,
        "subject": "Algebra",
        "all": ["x"],
    }
    expected = Problem(
        id="m/1",
        prompt="2+2?\nBox it.",
        answer="4",
        solution="Add.",
        about={"level": "5", "subject": "Algebra"},
    )
    assert read(row, instruction="Box it.") == [expected]


def test_given_columns_win_and_ids_default_to_the_position() -> None:
    rows = [
        {"q": "2+2?", "problem": "no", "gold": "4"},
        {"q": "3+3?", "problem": "no", "gold": "6"},
    ]
    problems = read(*rows, columns=Columns(problem="q", answer="gold"))
    assert [(problem.id, problem.prompt, problem.answer) for problem in problems] == [
        ("0", "2+2?", "4"),
        ("1", "3+3?", "6"),
    ]


def test_conversations_end_with_the_user_and_a_reply_is_the_solution() -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]
    (problem,) = read(
        {"messages": [*turns, {"role": "assistant", "content": "It is 4."}], "answer": "4"},
        instruction="Box it.",
    )
    assert problem.prompt == (turns[0], {"role": "user", "content": "2+2?\nBox it."})
    assert problem.solution == "It is 4."
    (problem,) = read({"messages": turns, "answer": "4"})
    assert problem.prompt == tuple(turns)
    assert problem.solution == ""


def test_an_answer_may_be_missing() -> None:
    turns = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "It is 4."}]
    assert read({"messages": turns}) == [
        Problem(id="0", prompt=(turns[0],), answer="", solution="It is 4.", reply=(turns[1],))
    ]
    assert read({"prompt": "2+2?", "label": "x"}) == [
        Problem(id="0", prompt="2+2?", about={"label": "x"})
    ]
    rows = [
        {"problem": "2+2?", "answer": "4"},
        {"problem": "3+3?", "answer": None},
        {"problem": "4+4?", "answer": " "},
    ]
    assert [problem.answer for problem in read(*rows)] == ["4", "", ""]


def test_a_named_conversation_wins_over_a_usual_problem() -> None:
    turns = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4."}]
    (problem,) = read({"prompt": "no", "chat": turns}, columns=Columns(messages="chat"))
    assert (problem.prompt, problem.solution, problem.about) == (
        (turns[0],),
        "4.",
        {"prompt": "no"},
    )
    (problem,) = read({"prompt": turns}, columns=Columns(messages="prompt"))
    assert (problem.prompt, problem.solution) == ((turns[0],), "4.")
    (problem,) = read({"messages": turns, "q": "3+3?"}, columns=Columns(problem="q"))
    assert problem.prompt == "3+3?"


def test_a_named_column_plays_no_other_part() -> None:
    (problem,) = read(
        {"problem": "2+2?", "answer": "Add. It is 4."}, columns=Columns(solution="answer")
    )
    assert (problem.answer, problem.solution) == ("", "Add. It is 4.")


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (
            [{"text": "?", "answer": "4"}],
            Columns(),
            r"no column for the problem \(looked for: .*question.*; it has: text, answer\)",
        ),
        ([{"problem": "?"}], Columns(answer="gold"), r"no column 'gold' \(it has: problem\)"),
        (
            [{"problem": "?", "answer": "4"}],
            Columns(problem="probelm"),
            "no column 'probelm'; did you mean `problem`?",
        ),
        ([{"problem": " ", "answer": "4"}], Columns(), "line 1: column 'problem' is empty"),
        ([{"problem": ["?"], "answer": "4"}], Columns(), "line 1: column 'problem' holds list"),
        (
            [{"id": "a", "problem": "?", "answer": "4"}] * 2,
            Columns(),
            "line 2: id 'a' occurs more than once",
        ),
        (
            [{"messages": "hello", "answer": "4"}],
            Columns(),
            r"line 1: column 'messages' holds str 'hello'; expected a list of turns "
            r"\(\{role, content\}",
        ),
        (
            [{"messages": [{"role": "assistant", "content": "4"}], "answer": "4"}],
            Columns(),
            "conversation in column 'messages' has no user turn",
        ),
    ],
)
def test_what_is_refused(rows: list[Row], columns: Columns, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(*rows, columns=columns)


def test_several_answers_are_one_list_and_several_solutions_one_text() -> None:
    (problem,) = read(
        {"question": "x^2 = 4?", "final_answer": ["2", "-2"], "solution": ["By eye.", "By roots."]}
    )
    assert (problem.answer, problem.solution) == ("2, -2", "By eye.\n\nBy roots.")
    (problem,) = read({"question": "?", "final_answer": []})
    assert problem.answer == ""


def test_a_generated_problem_is_made_when_it_is_read() -> None:
    made: list[int] = []

    def generate(index: int) -> Problem:
        made.append(index)
        return Problem(id=str(index), prompt="")

    problems = GeneratedProblems(generate, 10)
    assert (len(problems), made) == (10, [])
    assert [problem.id for problem in (problems[3], problems[-1], *problems[:2])] == list("3901")
    assert made == [3, 9, 0, 1]
    assert [problem.id for problem in problems] == list("0123456789")
    with pytest.raises(IndexError):
        problems[10]
