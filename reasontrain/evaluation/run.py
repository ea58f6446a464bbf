"""A suite asked of a model: every answer with its verdict, and what they add up to."""

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
from reasontrain.tasks import Scored
from reasontrain.tasks.grading import spelling
from reasontrain.types import Problem, UserError

NO_VOTE = -1
MAX_PARTS = 32
"""More groups than this are no subjects or levels, but something that nearly every problem has of
its own.
"""
GRADED_AT_ONCE = 16
"""Answers that the grader gets together; they are kept and shown before the next ones are graded.
"""

Score = Callable[[Sequence[tuple[Problem, str]]], list[Scored]]
"""What grades responses to problems, in order."""
Progress = Callable[[int, float], None]
"""Hears how many answers there are, and which share of them is right."""


@dataclass(frozen=True)
class EvaluationPart:
    """The accuracy on some of the problems."""

    num_problems: int
    accuracy: Interval


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a suite measured: shares with 95 % intervals over problems; `dropped` counts prompts
    that did not fit.

    `format_failure_share` is the share of answers in which none was found, `reasons` how often each
    verdict came about (the grader's own failures too: "timeout", "memory", "crash"), and `parts`
    the accuracy by level, subject and the like, over the problems that were asked. Lengths are None
    where some answers were not counted.
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
        """For evaluations.jsonl and reports: everything but the answers."""
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
        """The estimates alone, by suite and metric."""
        return {f"{self.suite}/{name}": interval.value for name, interval in self.metrics.items()}


def evaluate(
    suite: Suite,
    problems: Sequence[Problem],
    respond: AnswerFn,
    *,
    score: Score,
    dropped: int = 0,
    sha256: str = "",
    kept: Mapping[ProblemSample, Answer] | None = None,
    keep: Callable[[Answer], None] = lambda answer: None,
    progress: Progress = lambda done, right: None,
) -> Evaluation:
    """Have `suite.num_samples` answers to each problem and grade them as they come; `progress`
    hears of every few.

    Answers that are `kept` from before are neither asked nor graded again: a verdict may be a
    timeout, which would not come again. Each new one is handed to `keep` with its verdict. A prompt
    that was dropped because it did not fit counts as answered wrongly, so that scores stay
    comparable.
    """
    if not problems:
        raise UserError(f"suite {suite.name} has no problem to ask")
    found = dict(kept or {})
    num_right = sum(answer.verdict.correct for answer in found.values())
    missing = {
        (m, s) for m in range(len(problems)) for s in range(suite.num_samples)
    } - found.keys()
    if found:
        progress(len(found), num_right / len(found))
    for replies in respond(missing) if missing else ():
        new = [
            (place, reply)
            for place, reply in replies.items()
            if place in missing and place not in found
        ]
        for start in range(0, len(new), GRADED_AT_ONCE):
            some = new[start : start + GRADED_AT_ONCE]
            graded = score([(problems[m], reply.text) for (m, _), reply in some])
            for ((m, s), reply), scored in zip(some, graded, strict=True):
                answer = Answer(problem=problems[m], sample=s, reply=reply, verdict=scored.verdict)
                keep(answer)
                found[m, s] = answer
                num_right += answer.verdict.correct
            progress(len(found), num_right / len(found))
    assert missing <= found.keys(), "every place was asked"
    return _summed(suite, problems, [found[place] for place in sorted(found)], dropped, sha256)


def _summed(
    suite: Suite, problems: Sequence[Problem], answers: Sequence[Answer], dropped: int, sha256: str
) -> Evaluation:
    """What answers, problem by problem, add up to."""
    shape = len(problems), suite.num_samples
    correct_MS = np.array([a.verdict.correct for a in answers]).reshape(shape)
    vote_MS = np.array(_votes(answers)).reshape(shape)
    unasked = [(0, dropped), (0, 0)]
    lengths = [a.reply.num_tokens for a in answers if a.reply.num_tokens is not None]
    is_counted, reasons = len(lengths) == len(answers), Counter(a.verdict.reason for a in answers)
    return Evaluation(
        suite=suite.name,
        version=suite.version,
        problems_sha256=sha256,
        num_problems=len(problems) + dropped,
        num_samples=suite.num_samples,
        temperature=suite.sampling.temperature,
        metrics=summarise(
            np.pad(correct_MS, unasked),
            suite.pass_at,
            vote_MS=np.pad(vote_MS, unasked, constant_values=NO_VOTE),
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
    """One number per answer, the same for equal answers to a problem: all right ones are equal,
    wrong ones where they are spelt alike after normalisation; NO_VOTE for none.
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
    """Accuracy by each property that all problems have and that parts them into a few groups."""
    found: dict[str, dict[str, EvaluationPart]] = {}
    shared = set.intersection(*(set(problem.about) for problem in problems))
    for by in sorted(shared):
        value_M = np.array([problem.about[by] for problem in problems])
        values = np.unique(value_M)
        if 2 <= len(values) <= min(MAX_PARTS, len(problems) // 2):
            rows = {str(value): correct_MS[value_M == value] for value in values}
            found[by] = {
                value: EvaluationPart(len(row), estimate(mean_per_problem(row)))
                for value, row in rows.items()
            }
    return found


def summary(result: Evaluation, done: int | None = None) -> str:
    """One line for a person."""
    parts = [
        f"{name} {100 * m.value:.1f} % [{100 * m.low:.1f}, {100 * m.high:.1f}]"
        for name, m in result.metrics.items()
    ]
    when = "" if done is None else f" after {done} steps"
    return (
        f"{result.suite}{when}: {', '.join(parts)} ({result.num_problems} problems x "
        f"{result.num_samples})"
    )
