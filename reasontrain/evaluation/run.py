"""Evaluation of a model on a suite: every answer with its verdict, and their statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
from jaxtyping import Bool

from reasontrain.data.environment import EnvironmentSettings
from reasontrain.data.thought_marks import KNOWN
from reasontrain.evaluation.answers import Answer, ProblemSample
from reasontrain.evaluation.generation import AnswerFn
from reasontrain.metrics.accuracy import Interval, estimate, mean_per_problem, summarise
from reasontrain.recipe import Suite
from reasontrain.tasks import (
    AnswerFormat,
    Grader,
    Response,
    Scored,
    Task,
    Verdict,
    grade_episodes,
)
from reasontrain.tasks.grading import UNFINISHED, Vote, group_votes
from reasontrain.tasks.grading.grader import num_cores
from reasontrain.types import Problem, UserError

NO_VOTE = -1
"""The vote of a response without an answer, in integer arrays of votes."""
UNDECIDED = frozenset({"too large", "timeout", "memory", "crash"})
"""Reasons of verdicts on answers that algebra cannot handle; their votes go by spelling."""
MAX_PARTS = 32
"""The most values of a property (subject, level) for which accuracies are reported by value."""
GRADED_AT_ONCE = 16
"""Answers that are graded together, and logged and counted before the next ones are graded."""

Progress = Callable[[int, float], None]
"""Receives the number of answers so far, and the share of right ones."""


@dataclass(frozen=True, kw_only=True)
class SuiteGrader:
    """The grading of a suite: a task with the common verifier, and what counts as an answer.

    `environment` answered between the turns of responses, and may have rewarded them.
    """

    task: Task
    grader: Grader
    answer_format: AnswerFormat
    environment: EnvironmentSettings | None = None

    @property
    def extracts_answers(self) -> bool:
        """True if verdicts hold answers, of which majorities can be counted."""
        by_environment = self.environment is not None and self.environment.gives_reward
        return not (self.task.has_own_reward or by_environment)

    def __call__(self, responses: Sequence[Response]) -> list[Scored]:
        """Grade responses, in order."""
        return grade_episodes(
            self.task,
            responses,
            self.grader,
            self.environment,
            answer_format=self.answer_format,
        )

    def same(self, one: str, other: str, problem: Problem) -> bool:
        """Compare two extracted answers to a problem."""
        return self.task.same_answer(one, other, problem, self.grader)


@dataclass(frozen=True)
class EvaluationPart:
    """The accuracy on the problems that share a level, a subject or the like."""

    num_problems: int
    accuracy: Interval


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of a suite.

    Attributes:
        metrics: accuracy (the mean over all samples), and pass@k and maj@k for k above 1, with 95 %
            intervals over problems.
        response_tokens_mean: mean length in tokens. It and the quantiles are None if the length of
            an answer is unknown.
        truncated: number of responses cut at `max_tokens`.
        unfinished: number of responses whose chain of thought did not end.
        no_answer: number of other responses without an answer.
        shares: these numbers as shares of all responses, with 95 % intervals over problems.
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
    truncated: int
    unfinished: int
    no_answer: int
    shares: dict[str, Interval]
    reasons: dict[str, int]
    dropped: int
    parts: dict[str, dict[str, EvaluationPart]]
    answers: tuple[Answer, ...]

    def record(self) -> dict[str, object]:
        """Everything but the answers, for evaluations.jsonl and reports."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name not in {"answers", "metrics", "parts", "shares"}
        } | {
            "metrics": {name: asdict(interval) for name, interval in self.metrics.items()},
            "shares": {name: asdict(interval) for name, interval in self.shares.items()},
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
    score: SuiteGrader,
    dropped: int = 0,
    sha256: str = "",
    infer_thoughts: bool = False,
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
        infer_thoughts: the prompts are unknown (see the function of this name).
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
                    Response(
                        problem=problems[m],
                        text=reply.text,
                        truncated=reply.truncated,
                        unfinished=reply.unfinished,
                        answer_start=reply.answer_start,
                        episode=reply.episode,
                    )
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
    ordered = [answers[key] for key in sorted(answers)]
    if infer_thoughts:
        ordered = infer_thoughts_of(ordered)
    return _summarise(suite, problems, ordered, score, dropped, sha256)


def infer_thoughts_of(answers: Sequence[Answer]) -> list[Answer]:
    """Mark truncated replies of a thinking model that hold nothing but a thought.

    An endpoint's template may open the thought, so a reply that was cut within it has no mark. That
    the model thinks is known from the other replies to the suite: they end a thought that they do
    not open, or the server separates their thoughts.
    """
    marks = [KNOWN.find(answer.reply.text) for answer in answers]
    thinks = any(
        answer.reply.reasoning or (in_reply and in_reply[0].closes)
        for answer, in_reply in zip(answers, marks, strict=True)
    )
    return [
        replace(
            answer,
            reply=replace(answer.reply, unfinished=True),
            verdict=Verdict(correct=False, extracted="", reason=UNFINISHED),
        )
        if thinks and answer.reply.truncated and not in_reply and not answer.reply.reasoning
        else answer
        for answer, in_reply in zip(answers, marks, strict=True)
    ]


def _summarise(
    suite: Suite,
    problems: Sequence[Problem],
    answers: Sequence[Answer],
    score: SuiteGrader,
    dropped: int,
    sha256: str,
) -> Evaluation:
    """Compute the metrics of all answers, given in order of problem and sample."""
    shape = (len(problems), suite.num_samples)
    correct_MS = np.array([a.verdict.correct for a in answers]).reshape(shape)
    dropped_rows = [(0, dropped), (0, 0)]
    # the votes of a task or environment with its own reward are unknown: it extracts no answers
    has_votes = max(suite.pass_at, default=1) > 1 and score.extracts_answers
    vote_MS = (
        np.pad(
            np.array(_votes(answers, score.same)).reshape(shape),
            dropped_rows,
            constant_values=NO_VOTE,
        )
        if has_votes
        else None
    )
    outcomes = {
        "truncated": np.array([a.reply.truncated for a in answers]),
        "unfinished": np.array([a.unfinished for a in answers]),
        "no_answer": np.array([a.verdict.reason == "no answer" for a in answers]),
    }
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
        metrics=summarise(np.pad(correct_MS, dropped_rows), suite.pass_at, vote_MS=vote_MS),
        response_tokens_mean=float(np.mean(lengths)) if is_counted else None,
        response_tokens_p50=float(np.quantile(lengths, 0.5)) if is_counted else None,
        response_tokens_p95=float(np.quantile(lengths, 0.95)) if is_counted else None,
        truncated=int(outcomes["truncated"].sum()),
        unfinished=int(outcomes["unfinished"].sum()),
        no_answer=int(outcomes["no_answer"].sum()),
        shares={
            name: estimate(mean_per_problem(happened.reshape(shape)))
            for name, happened in outcomes.items()
        },
        reasons=dict(sorted(reasons.items())),
        dropped=dropped,
        parts=_parts(problems, correct_MS),
        answers=tuple(answers),
    )


def _votes(answers: Sequence[Answer], same: Callable[[str, str, Problem], bool]) -> list[int]:
    """Number the answers so that equal answers to a problem have equal numbers, for majority votes.

    The verifier's equivalence decides for right and wrong answers alike. A response without an
    answer gets NO_VOTE.
    """
    by_problem: dict[str, list[Answer]] = {}
    for answer in answers:
        by_problem.setdefault(answer.problem.id, []).append(answer)

    def number(group: Sequence[Answer]) -> list[int | None]:
        problem = group[0].problem
        return group_votes(
            [_vote(answer.verdict) for answer in group],
            lambda one, other: same(one, other, problem),
            problem.text,
        )

    # comparisons that need algebra wait for the grader's processes
    with ThreadPoolExecutor(num_cores()) as threads:
        numbered = threads.map(number, by_problem.values())
        votes = [vote for numbers in numbered for vote in numbers]
    return [NO_VOTE if vote is None else vote for vote in votes]


def _vote(verdict: Verdict) -> Vote:
    return Vote(verdict.extracted, verdict.correct, comparable=verdict.reason not in UNDECIDED)


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
    """Format the metrics in one line, with the numbers of responses that have no answer."""
    parts = [
        f"{name} {100 * m.value:.1f} % [{100 * m.low:.1f}, {100 * m.high:.1f}]"
        for name, m in result.metrics.items()
    ]
    when = "" if done is None else f" after {done} steps"
    return (
        f"{result.suite}{when}: {', '.join(parts)} ({result.num_problems} problems x "
        f"{result.num_samples}; {outcomes_text(result)})"
    )


def outcomes_text(result: Evaluation) -> str:
    """Format the numbers of responses that were cut, or that have no answer."""
    unfinished = f"{result.unfinished} with an unfinished thought"
    return f"{result.truncated} truncated, {unfinished}, {result.no_answer} without an answer"
