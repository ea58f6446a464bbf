"""A suite asked of a model: every answer with its verdict, and what they add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from reasontrain import checkpoint, track
from reasontrain.evaluation.metrics import Interval, estimate, mean_per_problem, summarise
from reasontrain.recipe import Suite
from reasontrain.sampler import Sampler
from reasontrain.tasks import Scored
from reasontrain.tasks.grading import spelling
from reasontrain.types import Problem, Prompt, Rollout, UserError

NO_VOTE = -1
MAX_PARTS = 32
"""More groups than this are no subjects or levels, but something that nearly every problem has of its own."""

Score = Callable[[Sequence[Rollout]], list[Scored]]


@dataclass(frozen=True)
class Answer:
    """A response and what it earned."""

    rollout: Rollout
    scored: Scored


@dataclass(frozen=True)
class Part:
    """The accuracy on some of the problems."""

    num_problems: int
    accuracy: Interval


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a suite measured: shares with 95 % intervals over problems; `dropped` counts prompts that did not fit.

    `format_failure_share` is the share of answers in which none was found, `reasons` how often each verdict came about (the
    grader's own failures too: "timeout", "memory", "crash"), and `parts` the accuracy by level, subject and the like, over the
    problems that were asked.
    """

    suite: str
    version: int
    problems_sha256: str
    num_problems: int
    num_samples: int
    temperature: float
    metrics: dict[str, Interval]
    response_tokens_mean: float
    response_tokens_p50: float
    response_tokens_p95: float
    truncated_share: float
    format_failure_share: float
    reasons: dict[str, int]
    dropped: int
    parts: dict[str, dict[str, Part]]
    answers: tuple[Answer, ...]

    def record(self) -> dict[str, object]:
        """For evaluations.jsonl and reports: everything but the answers."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in {"answers", "metrics", "parts"}} | {
            "metrics": {name: asdict(interval) for name, interval in self.metrics.items()},
            "parts": {by: {name: asdict(part) for name, part in parts.items()} for by, parts in self.parts.items()},
        }

    def scalars(self) -> dict[str, float]:
        """The estimates alone, by suite and metric."""
        return {f"{self.suite}/{name}": interval.value for name, interval in self.metrics.items()}


def evaluate(
    suite: Suite,
    prompts: Sequence[Prompt],
    *,
    sampler: Sampler,
    score: Score,
    dropped: int = 0,
    sha256: str = "",
    at_once: int = 512,
    progress: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Ask `suite.num_samples` answers to each prompt and grade them, `at_once` prompts at a time; `progress` hears of each part.

    A prompt that was dropped because it did not fit counts as answered wrongly, so that scores stay comparable.
    """
    if not prompts:
        raise UserError(f"suite {suite.name} has no problem to ask")
    answers: list[Answer] = []
    for start in range(0, len(prompts), at_once):
        part = prompts[start : start + at_once]
        rollouts = sampler.sample(part, suite.sampling, num=suite.num_samples, first_id=start * suite.num_samples)
        answers += [Answer(rollout, scored) for rollout, scored in zip(rollouts, score(rollouts), strict=True)]
        progress(start + len(part))
    shape = len(prompts), suite.num_samples
    correct_MS = np.array([a.scored.verdict.correct for a in answers]).reshape(shape)
    vote_MS = np.array(_votes(answers)).reshape(shape)
    unasked = [(0, dropped), (0, 0)]
    length_N = np.array([len(a.rollout.response_ids) for a in answers])
    reasons = Counter(a.scored.verdict.reason for a in answers)
    return Evaluation(
        suite=suite.name,
        version=suite.version,
        problems_sha256=sha256,
        num_problems=len(prompts) + dropped,
        num_samples=suite.num_samples,
        temperature=suite.sampling.temperature,
        metrics=summarise(np.pad(correct_MS, unasked), suite.pass_at, vote_MS=np.pad(vote_MS, unasked, constant_values=NO_VOTE)),
        response_tokens_mean=float(length_N.mean()),
        response_tokens_p50=float(np.quantile(length_N, 0.5)),
        response_tokens_p95=float(np.quantile(length_N, 0.95)),
        truncated_share=float(np.mean([a.rollout.truncated for a in answers])),
        format_failure_share=reasons["no answer"] / len(answers),
        reasons=dict(sorted(reasons.items())),
        dropped=dropped,
        parts=_parts(prompts, correct_MS),
        answers=tuple(answers),
    )


def _votes(answers: Sequence[Answer]) -> list[int]:
    """One number per answer, the same for equal answers to a problem: all right ones are equal, wrong ones where they are spelt
    alike after normalisation; NO_VOTE for none."""
    number_of: dict[tuple[str, bool, str], int] = {}
    votes = []
    for answer in answers:
        verdict = answer.scored.verdict
        spelt = "" if verdict.correct else spelling(verdict.extracted)
        key = answer.rollout.problem.id, verdict.correct, spelt
        votes.append(number_of.setdefault(key, len(number_of)) if verdict.correct or spelt else NO_VOTE)
    return votes


def _parts(prompts: Sequence[Prompt], correct_MS: Bool[np.ndarray, "M S"]) -> dict[str, dict[str, Part]]:
    """Accuracy by each property that all problems have and that parts them into a few groups."""
    found: dict[str, dict[str, Part]] = {}
    shared = set.intersection(*(set(prompt.problem.about) for prompt in prompts))
    for by in sorted(shared):
        value_M = np.array([prompt.problem.about[by] for prompt in prompts])
        values = np.unique(value_M)
        if 2 <= len(values) <= min(MAX_PARTS, len(prompts) // 2):
            rows = {str(value): correct_MS[value_M == value] for value in values}
            found[by] = {value: Part(len(row), estimate(mean_per_problem(row))) for value, row in rows.items()}
    return found


def summary(result: Evaluation, done: int | None = None) -> str:
    """One line for a person."""
    parts = [f"{name} {100 * m.value:.1f} % [{100 * m.low:.1f}, {100 * m.high:.1f}]" for name, m in result.metrics.items()]
    when = "" if done is None else f" after {done} steps"
    return f"{result.suite}{when}: {', '.join(parts)} ({result.num_problems} problems x {result.num_samples})"


def write_answers(path: Path, result: Evaluation) -> None:
    """Every answer with its verdict, one line each; the file is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.replace_text(path, "".join(map(_answer_line, result.answers)))


def _answer_line(answer: Answer) -> str:
    rollout, verdict = answer.rollout, answer.scored.verdict
    return track.json_line(
        {
            "problem": rollout.problem.id,
            "question": _question(rollout.problem),
            "gold": rollout.problem.answer,
            "response": rollout.text,
            "correct": verdict.correct,
            "extracted": verdict.extracted,
            "reason": verdict.reason,
            "truncated": rollout.truncated,
        }
    )


def _question(problem: Problem) -> str:
    """What was asked, as text: of a conversation its last turn."""
    return problem.prompt if isinstance(problem.prompt, str) else problem.prompt[-1]["content"]
