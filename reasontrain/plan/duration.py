"""Time of a whole run on the recipe's own placement: its steps and its evaluations.

Every answer of an evaluation is counted with as many tokens as it may have, like the responses of a
step. What is known only from data or from the run (suites of unknown size, stages, further rounds
of sampling) is named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from reasontrain.plan.roles import PlannedJob
from reasontrain.plan.scaling import Prediction, predict, sampling_s
from reasontrain.recipe import Suite
from reasontrain.tasks import Arithmetic, Gsm8k, MathTask

HUB_SIZES = {
    ("openai/gsm8k", "test"): 1319,
    ("HuggingFaceH4/MATH-500", "test"): 500,
    ("HuggingFaceH4/aime_2024", "train"): 30,
    ("math-ai/aime25", "test"): 30,
    ("math-ai/aime26", "test"): 30,
    ("math-ai/amc23", "test"): 40,
    ("math-ai/minervamath", "test"): 272,
    ("math-ai/olympiadbench", "test"): 675,
}
"""Problems of data sets on the hub, by name and split, as their pages state them."""


@dataclass(frozen=True, kw_only=True)
class Duration:
    """The time of a run on the recipe's own processes.

    Attributes:
        gpus: GPUs that all processes reserve; processes on CPUs reserve none.
        step: seconds by part of a step, on these processes.
        overlapped: the next batch is sampled while this one is learned from.
        steps: number of steps.
        evaluations: number of times that all suites are evaluated.
        answers: answers of one such time.
        evaluation_s: seconds of one such time.
        uncounted: suites, stages and rounds of sampling whose time is not in the total.
    """

    gpus: float
    step: Prediction
    overlapped: bool
    steps: int
    evaluations: int
    answers: int
    evaluation_s: float
    uncounted: tuple[str, ...]

    @property
    def step_s(self) -> float:
        """Seconds of a step; the longer of its halves if they overlap."""
        rest = self.step.step_s - self.step.sampling_s
        return max(self.step.sampling_s, rest) if self.overlapped else self.step.step_s

    @property
    def total_s(self) -> float:
        """Seconds of all steps and evaluations."""
        return self.steps * self.step_s + self.evaluations * self.evaluation_s


def duration(job: PlannedJob) -> Duration:
    """The time of the recipe's run on its own processes.

    Args:
        job: the recipe, with the sizes of its models and the rates of the machine.

    Returns:
        Seconds of a step and of an evaluation, and how often each occurs.
    """
    recipe = job.recipe
    cluster = job.cluster
    suites = recipe.evaluate.suites if recipe.evaluate else ()
    refills = recipe.sample is not None and recipe.sample.refill_rounds > 0
    sizes = {suite.name: _num_problems(suite, job) for suite in suites}
    counted = [suite for suite in suites if sizes[suite.name] is not None]
    gpus = job.gpus_per_process * (
        cluster.learners + cluster.samplers * recipe.engine.num_gpus + cluster.teachers
    )
    return Duration(
        gpus=gpus,
        step=predict(job, cluster.learners),
        overlapped=bool(cluster.overlap and cluster.samplers),
        steps=recipe.steps,
        evaluations=_evaluations(job),
        answers=sum((sizes[suite.name] or 0) * suite.num_samples for suite in counted),
        evaluation_s=math.fsum(_suite_s(suite, sizes[suite.name] or 0, job) for suite in counted),
        uncounted=(
            *(f"suite {name}" for name, size in sizes.items() if size is None),
            *(f"stage {stage.name}" for stage in recipe.stages),
            *(["rounds of sample.refill_rounds"] if refills else []),
        ),
    )


def _evaluations(job: PlannedJob) -> int:
    """The number of evaluations: before the first step, every so many, and after the last."""
    settings = job.recipe.evaluate
    if settings is None:
        return 0
    return sum(1 for _ in _evaluated_after(job.recipe.steps, settings.every, settings.before))


def _evaluated_after(steps: int, every: int, before: bool) -> Iterator[int]:
    """The numbers of steps after which suites are evaluated."""
    if before:
        yield 0
    if every:
        yield from range(every, steps, every)
    yield steps


def _num_problems(suite: Suite, job: PlannedJob) -> int | None:
    """The number of a suite's problems; None if only its data would tell."""
    task = suite.task or job.recipe.task
    limits = [suite.limit]
    if isinstance(task, Arithmetic):
        limits.append(task.num_problems)
    elif isinstance(task, Gsm8k | MathTask) and task.path is None:
        hub = task.hub or ("openai/gsm8k" if isinstance(task, Gsm8k) else "")
        limits += [task.limit, HUB_SIZES.get((hub, task.split))]
    return min((limit for limit in limits if limit is not None), default=None)


def _suite_s(suite: Suite, num_problems: int, job: PlannedJob) -> float:
    """Seconds to answer a suite, on the processes that sample rollouts."""
    processes = job.cluster.samplers or job.ranks
    share = -(-num_problems * suite.num_samples // processes)
    rows = min(share, job.recipe.engine.max_num_seqs)
    return sampling_s(
        job,
        rollouts=share,
        prompts=-(-num_problems // processes),
        rows=rows,
        response_tokens=suite.sampling.max_tokens,
    )
