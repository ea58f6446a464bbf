"""The answers of a row for its pages: wrong ones first, in pages of limited size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reasontrain.leaderboard.answers import AnswerRecord
from reasontrain.report.run import EvaluationRecord

MAX_CHARACTERS = 8_000_000


@dataclass(frozen=True, kw_only=True)
class TranscriptSuite:
    """Answers to a suite, or a part of them."""

    name: str
    evaluation: EvaluationRecord
    answers: tuple[AnswerRecord, ...]


def transcript(evaluation: EvaluationRecord, answers: Sequence[AnswerRecord]) -> TranscriptSuite:
    """The answers with wrong ones first, otherwise in the order of the file."""
    return TranscriptSuite(
        name=evaluation.suite,
        evaluation=evaluation,
        answers=tuple(sorted(answers, key=lambda answer: answer.correct)),
    )


def parts(
    suites: Sequence[TranscriptSuite], max_characters: int = MAX_CHARACTERS
) -> list[list[TranscriptSuite]]:
    """Split answers into pages of at most `max_characters`; there is at least one page."""
    pages: list[list[TranscriptSuite]] = [[]]
    left = max_characters
    for suite in suites:
        start = 0
        for index, answer in enumerate(suite.answers):
            size = len(answer.response) + len(answer.question)
            if size > left and (pages[-1] or index > start):
                pages[-1] += (
                    [replace(suite, answers=suite.answers[start:index])] if index > start else []
                )
                pages.append([])
                start = index
                left = max_characters
            left -= size
        pages[-1].append(replace(suite, answers=suite.answers[start:]))
    return pages
