"""Evaluation of a model on a suite: every answer with its verdict, and their statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from jaxtyping import Bool

from reasontrain.evaluation.answers import Answer, ProblemSample
from reasontrain.evaluation.generation import AnswerFn
from reasontrain.metrics.accuracy import Interval, estimate, mean_per_problem, summarise
from reasontrain.recipe import Suite
from reasontrain.tasks import Response, Scored
from reasontrain.tasks.grading import spelling
from reasontrain.types import Problem, UserError

NO_VOTE = -1
"""The vote of a response without an answer, in integer arrays of votes."""
MAX_PARTS = 32
"""The most values of a property (subject, level) for which accuracies are reported by value."""
GRADED_AT_ONCE = 16
"""Answers that are graded together, and logged and counted before the next ones are graded."""

ScoreFn = Callable[[Sequence[Response]], list[Scored]]
"""Grade responses, in order."""
Progress = Callable[[int, float], None]
"""Receives the number of answers so far, and the share of right ones."""


@dataclass(frozen=True)
class EvaluationPart:
    """The accuracy on the problems that share a level, a subject or the like."""

    num_problems: int
    accuracy: Interval


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of a suite.

    Attributes:
        metrics: accuracy, mean@k, pass@k and maj@k, with 95 % intervals over problems.
        response_tokens_mean: mean length in tokens. It and the quantiles are None if the length of
            an answer is unknown.
        truncated_share: share of answers cut at `max_tokens`.
        format_failure_share: share of responses without an answer.
        reasons: the number of answers by `Verdict.reason`, including the grader's own failures
            ("timeout", "memory", "crash").
        dropped: the number of prompts that did not fit the model; they count as wrong.
        parts: accuracy by property (level, subject) and its value, without dropped prompts.
        answers: every answer, by problem and sample.
    """

    suite: str
    version: int
    problems_sha256: str
    num_problems: int
    num_samples: int
    temperature: float
    metrics: dict[str, Interval]
    response_tokens_mean: float | None
    response_tokens_p50: float | None
    response_tokens_p95: float | None
    truncated_share: float
    format_failure_share: float
    reasons: dict[str, int]
    dropped: int
    parts: dict[str, dict[str, EvaluationPart]]
    answers: tuple[Answer, ...]

    def record(self) -> dict[str, object]:
        """Everything but the answers, for evaluations.jsonl and reports."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name not in {"answers", "metrics", "parts"}
        } | {
            "metrics": {name: asdict(interval) for name, interval in self.metrics.items()},
            "parts": {
                by: {name: asdict(part) for name, part in parts.items()}
                for by, parts in self.parts.items()
            },
        }

    def scalars(self) -> dict[str, float]:
        """The estimates without intervals, by suite and metric."""
        return {f"{self.suite}/{name}": interval.value for name, interval in self.metrics.items()}


def evaluate(
    suite: Suite,
    problems: Sequence[Problem],
    answer: AnswerFn,
    *,
    score: ScoreFn,
    dropped: int = 0,
    sha256: str = "",
    logged: Mapping[ProblemSample, Answer] | None = None,
    log: Callable[[Answer], None] = lambda answer: None,
    progress: Progress = lambda done, right: None,
) -> Evaluation:
    """Collect `suite.num_samples` answers to each problem, and grade them as they arrive.

    Args:
        suite: the suite.
        problems: its problems, without those of dropped prompts.
        answer: the model, as a function from missing keys to replies.
        score: the grader.
        dropped: the number of prompts that did not fit the model. They count as wrong, so that
            scores of different models stay comparable.
        sha256: hash of all problems, for the record.
        logged: answers from an earlier run. They are neither generated nor graded again: a verdict
            may be a timeout, which might not occur again.
        log: called with each new answer and its verdict.
        progress: called after every `GRADED_AT_ONCE` answers.

    Returns:
        Metrics and all answers.

    Raises:
        UserError: there are no problems.
    """
    if not problems:
        raise UserError(f"suite {suite.name} has no problems")
    answers = dict(logged or {})
    num_right = sum(one.verdict.correct for one in answers.values())
    missing = {
        (m, s) for m in range(len(problems)) for s in range(suite.num_samples)
    } - answers.keys()
    if answers:
        progress(len(answers), num_right / len(answers))
    for replies in answer(missing) if missing else ():
        # a chunk that is sampled again also holds replies that are logged already
        new = [
            (key, reply) for key, reply in replies.items() if key in missing and key not in answers
        ]
        for start in range(0, len(new), GRADED_AT_ONCE):
            batch = new[start : start + GRADED_AT_ONCE]
            graded = score(
                [
                    Response(problem=problems[m], text=reply.text, truncated=reply.truncated)
                    for (m, _), reply in batch
                ]
            )
            for ((m, s), reply), scored in zip(batch, graded, strict=True):
                one = Answer(problem=problems[m], sample=s, reply=reply, verdict=scored.verdict)
                log(one)
                answers[m, s] = one
                num_right += one.verdict.correct
            progress(len(answers), num_right / len(answers))
    assert missing <= answers.keys(), "the model did not answer every problem"
    return _summarise(suite, problems, [answers[key] for key in sorted(answers)], dropped, sha256)


def _summarise(
    suite: Suite, problems: Sequence[Problem], answers: Sequence[Answer], dropped: int, sha256: str
) -> Evaluation:
    """Compute the metrics of all answers, given in order of problem and sample."""
    shape = (len(problems), suite.num_samples)
    correct_MS = np.array([a.verdict.correct for a in answers]).reshape(shape)
    vote_MS = np.array(_votes(answers)).reshape(shape)
    dropped_rows = [(0, dropped), (0, 0)]
    lengths = [a.reply.num_tokens for a in answers if a.reply.num_tokens is not None]
    is_counted = len(lengths) == len(answers)
    reasons = Counter(a.verdict.reason for a in answers)
    return Evaluation(
        suite=suite.name,
        version=suite.version,
        problems_sha256=sha256,
        num_problems=len(problems) + dropped,
        num_samples=suite.num_samples,
        temperature=suite.sampling.temperature,
        metrics=summarise(
            np.pad(correct_MS, dropped_rows),
            suite.pass_at,
            vote_MS=np.pad(vote_MS, dropped_rows, constant_values=NO_VOTE),
        ),
        response_tokens_mean=float(np.mean(lengths)) if is_counted else None,
        response_tokens_p50=float(np.quantile(lengths, 0.5)) if is_counted else None,
        response_tokens_p95=float(np.quantile(lengths, 0.95)) if is_counted else None,
        truncated_share=float(np.mean([a.reply.truncated for a in answers])),
        format_failure_share=reasons["no answer"] / len(answers),
        reasons=dict(sorted(reasons.items())),
        dropped=dropped,
        parts=_parts(problems, correct_MS),
        answers=tuple(answers),
    )


def _votes(answers: Sequence[Answer]) -> list[int]:
    """Number the answers so that equal answers to a problem have equal numbers, for majority votes.

    All right answers to a problem count as equal; wrong answers are equal if their normalised
    spellings are. A response without an answer gets NO_VOTE.
    """
    number_of: dict[tuple[str, bool, str], int] = {}
    votes = []
    for answer in answers:
        verdict = answer.verdict
        spelt = "" if verdict.correct else spelling(verdict.extracted)
        key = answer.problem.id, verdict.correct, spelt
        votes.append(
            number_of.setdefault(key, len(number_of)) if verdict.correct or spelt else NO_VOTE
        )
    return votes


def _parts(
    problems: Sequence[Problem], correct_MS: Bool[np.ndarray, "M S"]
) -> dict[str, dict[str, EvaluationPart]]:
    """Accuracy by each property that all problems have and that has only a few values."""
    parts: dict[str, dict[str, EvaluationPart]] = {}
    shared = set.intersection(*(set(problem.about) for problem in problems))
    for by in sorted(shared):
        value_M = np.array([problem.about[by] for problem in problems])
        values = np.unique(value_M)
        if 2 <= len(values) <= min(MAX_PARTS, len(problems) // 2):
            rows = {str(value): correct_MS[value_M == value] for value in values}
            parts[by] = {
                value: EvaluationPart(len(row), estimate(mean_per_problem(row)))
                for value, row in rows.items()
            }
    return parts


def summary(result: Evaluation, done: int | None = None) -> str:
    """Format the metrics in one line."""
    parts = [
        f"{name} {100 * m.value:.1f} % [{100 * m.low:.1f}, {100 * m.high:.1f}]"
        for name, m in result.metrics.items()
    ]
    when = "" if done is None else f" after {done} steps"
    return (
        f"{result.suite}{when}: {', '.join(parts)} ({result.num_problems} problems x "
        f"{result.num_samples})"
    )
