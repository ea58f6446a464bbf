"""Answers in the order in which a person wants them, in parts that a browser can hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import integers, lists

from reasontrain.leaderboard.answers import AnswerRecord
from reasontrain.leaderboard.transcripts import TranscriptSuite, parts, transcript
from reasontrain.report.run import EvaluationRecord

EVALUATION = EvaluationRecord(
    step=0, suite="s", num_problems=3, num_samples=1, temperature=0.0, metrics={}
)


def answer(problem: int, correct: bool = False, size: int = 1) -> AnswerRecord:
    said = {"question": "", "gold": "", "extracted": "", "reason": ""}
    return AnswerRecord(
        problem=str(problem), response="x" * size, correct=correct, truncated=False, **said
    )


def test_wrong_answers_come_first_and_stay_in_order():
    suite = transcript(EVALUATION, [answer(0, True), answer(1), answer(2, True), answer(3)])
    assert [a.problem for a in suite.answers] == ["1", "3", "0", "2"]


def test_a_page_is_cut_where_it_is_full():
    one = TranscriptSuite(
        name="one",
        evaluation=EVALUATION,
        answers=(answer(0, size=4), answer(1, size=4), answer(2, size=4)),
    )
    other = TranscriptSuite(
        name="other", evaluation=EVALUATION, answers=(answer(3, size=1), answer(4, size=20))
    )
    cut = parts([one, other], max_characters=9)
    assert [[(s.name, [a.problem for a in s.answers]) for s in part] for part in cut] == [
        [("one", ["0", "1"])],
        [("one", ["2"]), ("other", ["3"])],
        [("other", ["4"])],
    ]


@given(sizes=lists(lists(integers(0, 12), max_size=6), max_size=4))
def test_no_answer_is_lost_and_no_part_is_empty(sizes: list[list[int]]):
    suites = [
        TranscriptSuite(
            name=str(i),
            evaluation=EVALUATION,
            answers=tuple(answer(10 * i + j, size=size) for j, size in enumerate(some)),
        )
        for i, some in enumerate(sizes)
    ]
    cut = parts(suites, max_characters=10)
    shown = [a.problem for part in cut for suite in part for a in suite.answers]
    assert shown == [a.problem for suite in suites for a in suite.answers]
    assert all(part for part in cut[1:])
