"""A Recipe becomes a Run: models loaded, problems read and checked, every fault found before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from reasontrain import checkpoint, models, track
from reasontrain.credit import NoCredit
from reasontrain.data.order import Order
from reasontrain.data.prompts import Encoder, PromptSettings
from reasontrain.data.sampling import Sampling
from reasontrain.evaluation.run import evaluate, summary, write_answers
from reasontrain.learner.local import LocalLearner
from reasontrain.learner.scorer import WholeModel
from reasontrain.loop import Run
from reasontrain.models import ModelSettings, Policy
from reasontrain.recipe import Local, Recipe, Suite, as_mapping, as_yaml, changed_keys, is_due, read_yaml
from reasontrain.recipe.read import YamlValue
from reasontrain.reduce import AVERAGES
from reasontrain.sampler import Sampler
from reasontrain.sampler.local import LocalSampler
from reasontrain.sampler.written import WrittenSampler
from reasontrain.tasks import Scored, TaskSettings, check_gold, score
from reasontrain.tasks.arithmetic import Arithmetic
from reasontrain.tasks.grading import Grader
from reasontrain.tasks.python import PythonTask
from reasontrain.types import Prompt, Rollout, UserError

RECIPE, ENVIRONMENT, ANSWERS = "recipe.yaml", "environment.json", "answers"
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
MAY_CHANGE = ("steps", "evaluate", "checkpoint", "track", "out")
"""Keys that a run may be continued with other values of: a finished run is extended by raising `steps`."""
Say = Callable[[str], None]
Score = Callable[[Sequence[Rollout]], list[Scored]]


@dataclass(frozen=True)
class Asked:
    """A suite with its prompts encoded for the model, and how many did not fit."""

    suite: Suite
    prompts: Sequence[Prompt]
    dropped: int
    score: Score


@dataclass(frozen=True)
class Assembled:
    """A run that could start now: nothing of it is written yet."""

    recipe: Recipe
    directory: Path
    policy: Policy
    learner: LocalLearner
    order: Order
    sampler: Sampler
    score: Callable[[Sequence[Rollout]], list[Rollout]]
    suites: Sequence[Asked]
    say: Say

    def begin(self) -> tuple[Run, int]:
        """The run and the step it goes on from, its directory made; raises UserError where that holds another run."""
        config = as_mapping(self.recipe)
        found = _resume(self.directory, config, self.learner, self.say)
        service = track.open_service(self.recipe.track, self.recipe.name, config)
        self.directory.mkdir(parents=True, exist_ok=True)
        checkpoint.replace_text(self.directory / RECIPE, as_yaml(self.recipe))
        facts = track.environment(VERSIONS, {"seed": self.recipe.seed, "device": str(self.policy.device)})
        checkpoint.replace_text(self.directory / ENVIRONMENT, json.dumps(facts, indent=1))
        tracker = track.Tracker(self.directory, self.recipe.track, service, from_step=found)
        return self._run(tracker), found

    def _run(self, tracker: track.Tracker) -> Run:
        recipe, sample = self.recipe, self.recipe.sample
        return Run(
            directory=self.directory,
            order=self.order,
            sampler=self.sampler,
            sampling=sample or Sampling(),
            group_size=sample.group_size if sample else 1,
            truncated=sample.truncated if sample else "score",
            score=self.score,
            credit=recipe.credit,
            select=recipe.select,
            needs=recipe.needs,
            reuse_sampled_logp=recipe.learn.old_logp == "auto" and sample is not None and not sample.truncates,
            learner=self.learner,
            objective=recipe.objective,
            average=AVERAGES[recipe.average],
            tracker=tracker,
            evaluate=lambda done: self._evaluate(done, tracker),
            checkpoint=recipe.checkpoint,
            max_nonfinite=recipe.learn.max_nonfinite,
            steps=recipe.steps,
            seed=recipe.seed,
        )

    def _evaluate(self, done: int, tracker: track.Tracker) -> None:
        """All suites, where the recipe wants them after `done` steps."""
        settings = self.recipe.evaluate
        if settings is None or not (settings.before if done == 0 else done == self.recipe.steps or is_due(settings.every, done)):
            return
        for asked in self.suites:
            if tracker.has_evaluation(done, asked.suite.name):
                continue
            sampler = LocalSampler(self.policy, seed=self.recipe.seed, max_rows=_engine(self.recipe).max_rows)
            result = evaluate(asked.suite, asked.prompts, sampler=sampler, score=asked.score, dropped=asked.dropped)
            write_answers(self.directory / ANSWERS / f"{asked.suite.name}-step-{done}.jsonl", result)
            tracker.evaluation(done, result.record(), result.scalars())  # last: what is recorded is not measured again
            self.say(summary(result, done))


@contextmanager
def assembled(recipe: Recipe, say: Say) -> Iterator[Assembled]:
    """Load and check everything that the recipe names; the grader's processes end with this block."""
    track.check_service(recipe.track)
    with Grader() as grader:
        yield _assemble(recipe, grader, say)


def _assemble(recipe: Recipe, grader: Grader, say: Say) -> Assembled:
    policy = models.load(recipe.model, trainable=True)
    teacher = _frozen(recipe.teacher, policy, "teacher") if recipe.teacher else None
    needs_reference = "ref_logp" in recipe.needs
    reference = _frozen(recipe.reference or recipe.model, policy, "reference") if needs_reference else None
    prompts = _prompts(recipe, policy, grader, say)
    sampler, order = _sampler(recipe, policy, prompts, say)
    directory = Path(recipe.out) / recipe.name
    checkpoint.check_space(directory, policy.model.num_parameters(), recipe.checkpoint.keep)
    return Assembled(
        recipe=recipe,
        directory=directory,
        policy=policy,
        learner=LocalLearner(
            policy,
            recipe.learn,
            steps=recipe.steps,
            temperature=recipe.temperature,
            teacher=WholeModel(teacher) if teacher else None,
            reference=WholeModel(reference) if reference else None,
            export_dtype=recipe.model.export or recipe.model.dtype,
        ),
        order=order,
        sampler=sampler,
        score=_rewarded(_scorer(recipe.task, grader)) if recipe.sample else list,
        suites=[ask(suite, recipe, policy, grader, say) for suite in (recipe.evaluate.suites if recipe.evaluate else ())],
        say=say,
    )


def _scorer(task: TaskSettings, grader: Grader) -> Score:
    """What grades the rollouts of one task."""
    return lambda rollouts: score(task, [(rollout.problem, rollout.text) for rollout in rollouts], grader)


def _rewarded(grade: Score) -> Callable[[Sequence[Rollout]], list[Rollout]]:
    """Rollouts with their rewards."""
    return lambda rollouts: [replace(r, reward=s.reward) for r, s in zip(rollouts, grade(rollouts), strict=True)]


def _frozen(settings: ModelSettings, policy: Policy, role: str) -> Policy:
    """A model that is only compared with, speaking the same token ids."""
    frozen = models.load(replace(settings, export=None, device="cuda" if policy.device.type == "cuda" else "cpu"))
    models.check_same_ids(policy, frozen, role)
    return frozen


def _prompts(recipe: Recipe, policy: Policy, grader: Grader, say: Say) -> list[Prompt]:
    """The training prompts, their gold answers checked."""
    problems = recipe.task.problems()
    if not isinstance(recipe.task, PythonTask):
        check_gold(problems, grader, required=not isinstance(recipe.credit, NoCredit))
    elif recipe.sample:
        recipe.task.load()
    prompts, dropped = Encoder(policy.tokenizer, recipe.prompt, policy.context).prompts(problems)
    if dropped:
        say(f"{dropped} of {len(problems)} prompts are too long and were dropped")
    return prompts


def _sampler(recipe: Recipe, policy: Policy, prompts: list[Prompt], say: Say) -> tuple[Sampler, Order]:
    """Who answers the prompts, and in which order they are asked."""
    if recipe.sample:
        per_step = recipe.learn.rollouts_per_step // recipe.sample.group_size
        sampler: Sampler = LocalSampler(policy, seed=recipe.seed, max_rows=_engine(recipe).max_rows)
        return sampler, Order(prompts, per_step, recipe.seed, policy.tokenizer)
    encoder = Encoder(policy.tokenizer, recipe.prompt, policy.context)
    written, dropped = encoder.demonstrations(prompts, policy.context)
    if dropped:
        say(f"{dropped} of {len(prompts)} demonstrations are too long and were dropped")
    by_id = {rollout.problem.id: rollout for rollout in written}
    asked = [prompt for prompt in prompts if prompt.problem.id in by_id]
    return WrittenSampler(by_id), Order(asked, recipe.learn.rollouts_per_step, recipe.seed, policy.tokenizer)


def _engine(recipe: Recipe) -> Local:
    """How this process decodes."""
    engine = recipe.sample.engine if recipe.sample else Local()
    assert isinstance(engine, Local), "the recipe refuses vLLM outside of a cluster"
    return engine


def ask(suite: Suite, recipe: Recipe, policy: Policy, grader: Grader, say: Say) -> Asked:
    """A suite made ready for this model: its own task, or the recipe's on the held-out split."""
    task = suite.task or _held_out(recipe.task, suite)
    return prepare(suite, task, suite.prompt or recipe.prompt, policy, grader, say)


def prepare(suite: Suite, task: TaskSettings, prompt: PromptSettings, policy: Policy, grader: Grader, say: Say) -> Asked:
    """The suite's prompts in this model's token ids; those that are too long are counted, and count as wrong."""
    problems = task.problems()[: suite.limit]
    if isinstance(task, PythonTask):
        task.load()
    else:
        check_gold(problems, grader, required=True)
    encoder = Encoder(policy.tokenizer, replace(prompt, too_long="drop"), policy.context)
    prompts, dropped = encoder.prompts(problems)
    if dropped:
        say(f"suite {suite.name}: {dropped} of {len(problems)} prompts do not fit the model and count as wrong")
    return Asked(suite, prompts, dropped, _scorer(task, grader))


def _held_out(task: TaskSettings, suite: Suite) -> TaskSettings:
    """The split of the recipe's task that is never trained on."""
    if not isinstance(task, Arithmetic):
        raise UserError(f"evaluate: suite {suite.name} names no `task`, and {task.kind} has no held-out split of its own")
    return replace(task, split="test", wrong_steps=0.0)


def _resume(directory: Path, config: Mapping[str, YamlValue], learner: LocalLearner, say: Say) -> int:
    """The step that the run in `directory` goes on from, with the learner as it was then; 0 where there is no run."""
    if not directory.exists() or not any(directory.iterdir()):
        return 0
    written = directory / RECIPE
    if not written.exists():
        raise UserError(f"{directory} exists and is no run; choose another `name` or `out`")
    changed = [key for key in changed_keys(read_yaml(written), config) if key.partition(".")[0] not in MAY_CHANGE]
    if changed:
        raise UserError(f"{directory} holds a run of another recipe (other: {', '.join(changed)}); choose another `name`")
    found = checkpoint.newest(directory, say)
    if found is None:
        return 0
    step, where = found
    if step > learner.steps:
        raise UserError(f"{directory} has {step} steps already, more than the {learner.steps} asked for; choose another `name`")
    learner.restore(where)
    say(f"going on from {where}")
    return step
