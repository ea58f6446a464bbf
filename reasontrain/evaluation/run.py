"""A suite asked of a model: every answer with its verdict, and what they add up to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from reasontrain import checkpoint, track
from reasontrain.evaluation.metrics import Interval, summarise
from reasontrain.recipe import Suite
from reasontrain.sampler import Sampler
from reasontrain.tasks import Scored
from reasontrain.types import Problem, Prompt, Rollout, UserError

Score = Callable[[Sequence[Rollout]], list[Scored]]


@dataclass(frozen=True)
class Answer:
    """A response and what it earned."""

    rollout: Rollout
    scored: Scored


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a suite measured: shares with 95 % intervals over problems; `dropped` counts prompts that did not fit."""

    suite: str
    num_problems: int
    num_samples: int
    temperature: float
    metrics: dict[str, Interval]
    response_tokens_mean: float
    truncated_share: float
    dropped: int
    answers: tuple[Answer, ...]

    def record(self) -> dict[str, object]:
        """For evaluations.jsonl and reports: everything but the answers."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in {"answers", "metrics"}} | {
            "metrics": {name: asdict(interval) for name, interval in self.metrics.items()}
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
    correct_MS = np.array([a.scored.verdict.correct for a in answers]).reshape(len(prompts), suite.num_samples)
    correct_MS = np.concatenate([correct_MS, np.zeros((dropped, suite.num_samples), dtype=bool)])
    return Evaluation(
        suite=suite.name,
        num_problems=len(correct_MS),
        num_samples=suite.num_samples,
        temperature=suite.sampling.temperature,
        metrics=summarise(correct_MS, suite.pass_at),
        response_tokens_mean=float(np.mean([len(a.rollout.response_ids) for a in answers])),
        truncated_share=float(np.mean([a.rollout.truncated for a in answers])),
        dropped=dropped,
        answers=tuple(answers),
    )


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
