"""A Recipe becomes a Run: models loaded, problems read and checked, every fault found before
anything is written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from reasontrain import models
from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.data.order import Order
from reasontrain.data.sampling import Sampling
from reasontrain.evaluation.answers import write_answers
from reasontrain.evaluation.generation import by, parts, sampled
from reasontrain.evaluation.run import evaluate, summary
from reasontrain.learner import Learner
from reasontrain.learner.factory import make_learner
from reasontrain.metrics import environment
from reasontrain.metrics.throughput import Count, Speed
from reasontrain.plan.flops import operations_of
from reasontrain.recipe import (
    LocalEngine,
    PastCheckpoint,
    Recipe,
    RecipeError,
    as_mapping,
    as_yaml,
    changed_keys,
    is_due,
    read_yaml,
)
from reasontrain.recipe.validation import image_errors
from reasontrain.run import checkpoint, tracking
from reasontrain.run.datasets import EncodedSuite, encode_suite, rewarded, source, with_stored
from reasontrain.run.directory import RunDirectory
from reasontrain.run.loop import Run, train
from reasontrain.sampler import Sampler
from reasontrain.sampler.local import LocalSampler
from reasontrain.sampler.offline import OfflineSampler
from reasontrain.tasks.grading import Grader
from reasontrain.types import Batch, LostError, Rollout, Stats, UserError

logger = logging.getLogger(__name__)

VERSIONS = (
    "reasontrain",
    "torch",
    "transformers",
    "tokenizers",
    "trl",
    "peft",
    "deepspeed",
    "ray",
    "datasets",
    "math-verify",
    "vllm",
)
MAY_CHANGE = ("steps", "evaluate", "checkpoint", "track", "out", "cluster", "baseline")
"""Keys that a run may be continued with other values of: a finished run is extended by raising
`steps`.
"""
AT_ONCE = 512
"""Prompts of a suite that are sampled together during training."""


@dataclass(frozen=True)
class ResolvedInputs:
    """What a run is made of before any weight is loaded: nothing of it is written yet."""

    recipe: Recipe
    given: Recipe
    directory: RunDirectory
    order: Order
    offline: OfflineSampler | None
    suites: Sequence[EncodedSuite]


@dataclass(frozen=True)
class RunContext:
    """A run that could start now."""

    prepared: ResolvedInputs
    learner: Learner
    rollouts: Sampler
    answerer: Sampler
    score: Callable[[Sequence[Rollout]], list[Rollout]]
    recover: Callable[[LostError], int]
    device: str

    def run(
        self,
        report: Callable[[int, Stats], None],
        begun: Callable[[RunDirectory], None] = lambda directory: None,
    ) -> RunDirectory:
        """Train to the last step, going on from a checkpoint where there is one, and write `final`;
        the run's directory.

        `begun` is told of the directory once it is there, `report` of each step.
        """
        run, from_step = self._begin()
        begun(run.directory)
        try:
            finish = partial(checkpoint.final, run.directory, self.learner.export)
            train(run, from_step=from_step, report=report, finish=finish)
        finally:
            run.tracker.close()
        return run.directory

    def _begin(self) -> tuple[Run, int]:
        """The run and the step it goes on from, its directory made."""
        recipe, directory = self.prepared.recipe, self.prepared.directory
        given = self.prepared.given
        found = _resume(directory, recipe.steps, self.learner)
        self.answerer.load(self.learner.weights())
        service = tracking.open_service(recipe.track, recipe.name, as_mapping(given))
        directory.path.mkdir(parents=True, exist_ok=True)
        directory.write_recipe(as_yaml(given))
        speed = _speed(recipe, self.learner)
        hardware = {"device": self.device, "matrix_tflops": round(speed.rate / 1e12, 4)}
        facts = environment.environment(VERSIONS, {"seed": recipe.seed, **hardware})
        directory.write_environment(facts)
        tracker = tracking.Tracker(directory, recipe.track, service, from_step=found)
        return self._run(tracker, speed), found

    @property
    def sampler(self) -> Sampler:
        """Who gives the rollouts of a step."""
        return self.prepared.offline or self.rollouts

    def _run(self, tracker: tracking.Tracker, speed: Speed) -> Run:
        recipe, sample = self.prepared.recipe, self.prepared.recipe.sample
        return Run(
            directory=self.prepared.directory,
            order=self.prepared.order,
            sampler=self.sampler,
            sampling=sample or Sampling(),
            group_size=sample.group_size
            if sample
            else 1 + (recipe.objective.granularity == "pair"),
            truncated=sample.truncated if sample else "score",
            score=self.score,
            advantage=recipe.advantage,
            rollout_filter=recipe.rollout_filter,
            token_selection=recipe.token_selection,
            required_evidence=recipe.required_evidence,
            reuse_sampled_logp=recipe.reuses_sampled_logp,
            learner=self.learner,
            objective=recipe.objective,
            loss_aggregation=LOSS_AGGREGATIONS[recipe.loss_aggregation],
            tracker=tracker,
            speed=speed,
            evaluate=lambda done: self._evaluate(done, tracker),
            recover=self.recover,
            checkpoint=recipe.checkpoint,
            max_nonfinite=recipe.learn.max_nonfinite,
            steps=recipe.steps,
            seed=recipe.seed,
        )

    def _evaluate(self, done: int, tracker: tracking.Tracker) -> None:
        """All suites, where the recipe wants them after `done` steps."""
        recipe, directory = self.prepared.recipe, self.prepared.directory
        settings = recipe.evaluate
        if settings is None or not (
            settings.before if done == 0 else done == recipe.steps or is_due(settings.every, done)
        ):
            return
        for asked in self.prepared.suites:
            if tracker.has_evaluation(done, asked.suite.name):
                continue
            suite = asked.suite
            whole = parts(asked.prompts, suite.sampling, num=suite.num_samples, at_once=AT_ONCE)
            result = evaluate(
                suite,
                [prompt.problem for prompt in asked.prompts],
                sampled(whole, by(self.answerer)),
                score=asked.score,
                dropped=asked.dropped,
                sha256=asked.sha256,
            )
            write_answers(directory.answers(suite.name, done), result.answers)
            tracker.evaluation(
                done, result.record(), result.scalars()
            )  # last: what is recorded is not measured again
            logger.info(summary(result, done))


@contextmanager
def run_context(recipe: Recipe, given: Recipe | None = None) -> Iterator[RunContext]:
    """Load and check everything that the recipe names; the processes that it starts end with this
    block.

    `given` is the recipe as it was before its stages' outputs had places: so it is kept in the run
    directory.
    """
    tracking.check_service(recipe.track)
    with Grader() as grader:
        prepared = _prepare(recipe, given or recipe, grader)
        if recipe.cluster is None:
            learner = make_learner(recipe)
            engine = recipe.engine
            assert isinstance(engine, LocalEngine), "the recipe refuses vLLM outside of a cluster"
            sampler = LocalSampler(
                learner.policy,
                seed=recipe.seed,
                max_num_seqs=engine.max_num_seqs,
                shared=True,
                cuda_graphs=engine.cuda_graphs,
            )
            score = rewarded(recipe, grader)
            yield RunContext(
                prepared,
                learner,
                sampler,
                sampler,
                score,
                _cannot_recover,
                str(learner.policy.device),
            )
            return
        from reasontrain.cluster.lifecycle import running  # Ray is for those who ask for it

        with running(
            recipe, recipe.cluster, prepared.directory, prepared.order, grader
        ) as processes:
            device, score = "cuda" if processes.gpu else "cpu", rewarded(recipe, processes.grader)
            who = processes.sampler, processes.answerer
            yield RunContext(prepared, processes.learner, *who, score, processes.recover, device)


def _speed(recipe: Recipe, learner: Learner) -> Speed:
    """What says how fast steps are; without utilisation where the sizes of an architecture do not
    say what it computes.
    """
    try:
        count: Count = operations_of(recipe)
    except UserError:
        count = _uncounted
    alone = recipe.cluster is None or not (recipe.cluster.samplers or recipe.cluster.teachers)
    return Speed(count=count, rate=learner.matrix_rate(), alone=alone)


def _uncounted(rollouts: Sequence[Rollout], batch: Batch, weight_BT: Tensor) -> Stats:
    return {}


def _cannot_recover(error: LostError) -> int:
    """One process has nothing to start again."""
    raise error


def _prepare(recipe: Recipe, given: Recipe, grader: Grader) -> ResolvedInputs:
    described = models.describe(recipe.model)
    past = recipe.earlier if isinstance(recipe.history, PastCheckpoint) else None
    others = [(recipe.teacher, "teacher"), (recipe.reference, "reference"), (past, "history model")]
    for settings, role in [(settings, role) for settings, role in others if settings is not None]:
        other = models.describe(settings)
        models.check_same_ids(described, other, role)
        if (other.vision is None) != (described.vision is None):
            raise UserError(
                f"{role}: of {recipe.model.path} and {settings.path} one sees images and "
                f"one does not; use alike ones"
            )
    if described.vision is not None and (errors := image_errors(recipe)):
        raise RecipeError(
            "\n".join([f"{recipe.name} trains on images:", *(f"  {e}" for e in errors)])
        )
    answers, order = source(recipe, described, grader)
    directory = run_directory(recipe)
    check_directory(directory, given)
    checkpoint.check_space(directory, described.num_parameters, recipe.checkpoint.num_kept)
    suites = [
        encode_suite(suite, recipe, described, grader)
        for suite in (recipe.evaluate.suites if recipe.evaluate else ())
    ]
    return ResolvedInputs(
        recipe,
        given,
        directory,
        order,
        answers and with_stored(recipe, described, answers),
        suites,
    )


def run_directory(recipe: Recipe) -> RunDirectory:
    """`<out>/<name>`."""
    return RunDirectory(Path(recipe.out) / recipe.name)


def check_directory(directory: RunDirectory, recipe: Recipe) -> None:
    """Refuse a directory that holds something else, or a run of another recipe."""
    if directory.is_empty():
        return
    if not directory.recipe.exists():
        raise UserError(f"{directory} exists and is no run; choose another `name` or `out`")
    changed = [
        key
        for key in changed_keys(read_yaml(directory.recipe), as_mapping(recipe))
        if key.partition(".")[0] not in MAY_CHANGE
    ]
    if changed:
        raise UserError(
            f"{directory} holds a run of another recipe (other: {', '.join(changed)}); "
            f"choose another `name`"
        )


def _resume(directory: RunDirectory, steps: int, learner: Learner) -> int:
    """The step that the run in `directory` goes on from, with the learner as it was then; 0 where
    there is no run.
    """
    found = checkpoint.newest(directory)
    if found is None:
        return 0
    step, where = found
    if step > steps:
        raise UserError(
            f"{directory} has {step} steps already, more than the {steps} asked for; "
            f"choose another `name`"
        )
    learner.restore(where)
    logger.info(f"going on from {where}")
    return step
