"""A Recipe becomes a Run: models loaded, problems read and checked, every fault found before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from reasontrain import checkpoint, models, track
from reasontrain.credit import NoCredit
from reasontrain.data import columns
from reasontrain.data.order import Order
from reasontrain.data.prompts import Encoder, PromptSettings
from reasontrain.data.sampling import Sampling
from reasontrain.data.written import encode
from reasontrain.evaluation.run import evaluate, summary, write_answers
from reasontrain.learner import Learner
from reasontrain.learner.make import make_learner
from reasontrain.learner.unconditional import with_uncond_logp
from reasontrain.loop import Run, train
from reasontrain.models import Description, Policy
from reasontrain.objectives import Dpo
from reasontrain.recipe import (
    STORED_EVIDENCE,
    Local,
    PastCheckpoint,
    Recipe,
    Suite,
    as_mapping,
    as_yaml,
    changed_keys,
    is_due,
    read_yaml,
)
from reasontrain.reduce import AVERAGES
from reasontrain.sampler import Sampler
from reasontrain.sampler.local import LocalSampler
from reasontrain.sampler.written import WrittenSampler
from reasontrain.selection import Contrast, Selector, ShuffledWeights
from reasontrain.tasks import PairTask, Reward, Scored, TaskSettings, WrittenTask, check_gold, score
from reasontrain.tasks.arithmetic import Arithmetic
from reasontrain.tasks.grading import Grader
from reasontrain.tasks.python import PythonTask
from reasontrain.types import LostError, Prompt, Rollout, Stats, UserError

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
MAY_CHANGE = ("steps", "evaluate", "checkpoint", "track", "out", "cluster", "baseline")
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
class Prepared:
    """What a run is made of before any weight is loaded: nothing of it is written yet."""

    recipe: Recipe
    given: Recipe
    directory: Path
    order: Order
    written: WrittenSampler | None
    suites: Sequence[Asked]


@dataclass(frozen=True)
class Assembled:
    """A run that could start now."""

    prepared: Prepared
    learner: Learner
    rollouts: Sampler
    answerer: Sampler
    score: Callable[[Sequence[Rollout]], list[Rollout]]
    recover: Callable[[LostError], int]
    device: str
    say: Say

    def run(self, report: Callable[[int, Stats], None], begun: Callable[[Path], None] = lambda directory: None) -> Path:
        """Train to the last step, going on from a checkpoint where there is one, and write `final`; the run's directory.

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
        found = _resume(directory, recipe.steps, self.learner, self.say)
        self.answerer.load(self.learner.weights())
        service = track.open_service(recipe.track, recipe.name, as_mapping(given))
        directory.mkdir(parents=True, exist_ok=True)
        checkpoint.replace_text(directory / RECIPE, as_yaml(given))
        facts = track.environment(VERSIONS, {"seed": recipe.seed, "device": self.device})
        checkpoint.replace_text(directory / ENVIRONMENT, json.dumps(facts, indent=1))
        tracker = track.Tracker(directory, recipe.track, service, from_step=found)
        return self._run(tracker), found

    @property
    def sampler(self) -> Sampler:
        """Who gives the rollouts of a step."""
        return self.prepared.written or self.rollouts

    def _run(self, tracker: track.Tracker) -> Run:
        recipe, sample = self.prepared.recipe, self.prepared.recipe.sample
        return Run(
            directory=self.prepared.directory,
            order=self.prepared.order,
            sampler=self.sampler,
            sampling=sample or Sampling(),
            group_size=sample.group_size if sample else 1 + (recipe.objective.unit == "pair"),
            truncated=sample.truncated if sample else "score",
            score=self.score,
            credit=recipe.credit,
            keep=recipe.keep,
            select=recipe.select,
            needs=recipe.needs,
            reuse_sampled_logp=recipe.learn.old_logp == "auto" and sample is not None and not sample.truncates,
            learner=self.learner,
            objective=recipe.objective,
            average=AVERAGES[recipe.average],
            tracker=tracker,
            evaluate=lambda done: self._evaluate(done, tracker),
            recover=self.recover,
            checkpoint=recipe.checkpoint,
            max_nonfinite=recipe.learn.max_nonfinite,
            steps=recipe.steps,
            seed=recipe.seed,
        )

    def _evaluate(self, done: int, tracker: track.Tracker) -> None:
        """All suites, where the recipe wants them after `done` steps."""
        recipe, directory = self.prepared.recipe, self.prepared.directory
        settings = recipe.evaluate
        if settings is None or not (settings.before if done == 0 else done == recipe.steps or is_due(settings.every, done)):
            return
        for asked in self.prepared.suites:
            if tracker.has_evaluation(done, asked.suite.name):
                continue
            result = evaluate(asked.suite, asked.prompts, sampler=self.answerer, score=asked.score, dropped=asked.dropped)
            write_answers(directory / ANSWERS / f"{asked.suite.name}-step-{done}.jsonl", result)
            tracker.evaluation(done, result.record(), result.scalars())  # last: what is recorded is not measured again
            self.say(summary(result, done))


@contextmanager
def assembled(recipe: Recipe, say: Say, given: Recipe | None = None) -> Iterator[Assembled]:
    """Load and check everything that the recipe names; the processes that it starts end with this block.

    `given` is the recipe as it was before its stages' outputs had places: so it is kept in the run directory.
    """
    track.check_service(recipe.track)
    with Grader() as grader:
        prepared = _prepare(recipe, given or recipe, grader, say)
        if recipe.cluster is None:
            learner = make_learner(recipe)
            engine = recipe.engine
            assert isinstance(engine, Local), "the recipe refuses vLLM outside of a cluster"
            sampler = LocalSampler(learner.policy, seed=recipe.seed, max_rows=engine.max_rows, shared=True)
            rewarded = _rewarded(recipe, grader)
            yield Assembled(prepared, learner, sampler, sampler, rewarded, _cannot_recover, str(learner.policy.device), say)
            return
        from reasontrain.cluster.running import running  # Ray is for those who ask for it

        with running(recipe, recipe.cluster, prepared.directory, prepared.order, grader, say) as processes:
            device, rewarded = "cuda" if processes.gpu else "cpu", _rewarded(recipe, processes.grader)
            who = processes.sampler, processes.answerer
            yield Assembled(prepared, processes.learner, *who, rewarded, processes.recover, device, say)


def _cannot_recover(error: LostError) -> int:
    """One process has nothing to start again."""
    raise error


def _prepare(recipe: Recipe, given: Recipe, grader: Grader, say: Say) -> Prepared:
    described = models.describe(recipe.model)
    past = recipe.earlier if isinstance(recipe.history, PastCheckpoint) else None
    others = [(recipe.teacher, "teacher"), (recipe.reference, "reference"), (past, "history model")]
    for settings, role in [(settings, role) for settings, role in others if settings is not None]:
        models.check_same_ids(described, models.describe(settings), role)
    answers, order = _source(recipe, described, grader, say)
    directory = Path(recipe.out) / recipe.name
    check_directory(directory, given)
    checkpoint.check_space(directory, described.num_parameters, recipe.checkpoint.num_kept)
    suites = [ask(suite, recipe, described, grader, say) for suite in (recipe.evaluate.suites if recipe.evaluate else ())]
    return Prepared(recipe, given, directory, order, answers and _with_stored(recipe, described, answers, say), suites)


def score_columns(recipe: Recipe, say: Say) -> None:
    """Compute and store the evidence that the recipe's rule reads from a store; raises UserError where it reads none."""
    if not recipe.evidence and not recipe.needs & STORED_EVIDENCE:
        read = ", ".join(sorted(recipe.needs)) or "none"
        raise UserError(
            f"{recipe.name} reads no stored evidence (its rule and objective need: {read}); there is nothing to score"
        )
    with Grader() as grader:
        described = models.describe(recipe.model)
        written, _ = _source(recipe, described, grader, say)
    assert written is not None, "the recipe refuses stored evidence beside sampling"
    _with_stored(recipe, described, written, say)


def _source(recipe: Recipe, described: Description, grader: Grader, say: Say) -> tuple[WrittenSampler | None, Order]:
    """What is learned from, where it is written already, and the order in which it is taken or asked for."""
    if recipe.sample is None and isinstance(recipe.task, WrittenTask):
        return _written(recipe, recipe.task, described, say)
    return _order(recipe, described, _prompts(recipe, described, grader, say), say)


def _with_stored(recipe: Recipe, described: Description, written: WrittenSampler, say: Say) -> WrittenSampler:
    """The demonstrations with the stored evidence that the recipe needs, computed first where it is not there."""
    if "uncond_logp" not in recipe.needs:
        return written
    encoder = Encoder(described.tokenizer, recipe.prompt, described.context)
    found = with_uncond_logp(recipe, encoder, [rollout for row in written.written.values() for rollout in row], say)
    return WrittenSampler({rollout.problem.id: (rollout,) for rollout in found})


def _scorer(task: TaskSettings, grader: Grader, reward: Reward | None = None) -> Score:
    """What grades the rollouts of one task."""
    return lambda rollouts: score(task, [(rollout.problem, rollout.text) for rollout in rollouts], grader, reward)


def _rewarded(recipe: Recipe, grader: Grader) -> Callable[[Sequence[Rollout]], list[Rollout]]:
    """What gives rollouts their rewards; demonstrations have none."""
    if recipe.sample is None:
        return list
    grade = _scorer(recipe.task, grader, recipe.reward)
    return lambda rollouts: [replace(r, reward=s.reward) for r, s in zip(rollouts, grade(rollouts), strict=True)]


def _prompts(recipe: Recipe, policy: Description, grader: Grader, say: Say) -> list[Prompt]:
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


def _order(recipe: Recipe, described: Description, prompts: list[Prompt], say: Say) -> tuple[WrittenSampler | None, Order]:
    """Demonstrations where they are learned from, and the order in which prompts are asked."""
    if recipe.sample:
        per_step = recipe.learn.rollouts_per_step // recipe.sample.group_size
        return None, Order(prompts, per_step, recipe.seed, described.tokenizer)
    encoder = Encoder(described.tokenizer, recipe.prompt, described.context)
    written, dropped = encoder.demonstrations(prompts, described.context)
    if dropped:
        say(f"{dropped} of {len(prompts)} demonstrations are too long and were dropped")
    by_id = {rollout.problem.id: (rollout,) for rollout in written}
    asked = [prompt for prompt in prompts if prompt.problem.id in by_id]
    return WrittenSampler(by_id), Order(asked, recipe.learn.rollouts_per_step, recipe.seed, described.tokenizer)


def _written(recipe: Recipe, task: WrittenTask, described: Description, say: Say) -> tuple[WrittenSampler, Order]:
    """What a file holds to learn from, with the evidence that was stored for it, and the order of its rows."""
    encoder = Encoder(described.tokenizer, recipe.prompt, described.context)
    rows, dropped = encode(task.rows, encoder, described.context)
    if dropped:
        say(f"{dropped} of {len(task.rows)} rows of {task.kind} are too long and were dropped")
    for name, path in sorted(recipe.evidence.items()):
        chosen_may_lack = int(isinstance(task, PairTask) and name == "ce_logscore" and not _reads_chosen(recipe.select))
        column = columns.read(Path(path), name, _made_by(recipe, name))
        rows = [column.joined(row, optional=chosen_may_lack) for row in rows]
    _check_padded(recipe, rows)
    asked = [Prompt(problem=row[0].problem, ids=row[0].prompt_ids) for row in rows]
    per_step = recipe.learn.rollouts_per_step // len(rows[0])
    sampler = WrittenSampler({row[0].problem.id: row for row in rows})
    return sampler, Order(asked, per_step, recipe.seed, described.tokenizer)


def _made_by(recipe: Recipe, name: str) -> columns.MadeBy | None:
    """What should have made a stored column, where the recipe says which model's numbers it is to hold."""
    return {"model": models.fingerprint(recipe.reference or recipe.model)} if name == "ref_logp" else None


def _reads_chosen(select: Selector) -> bool:
    """Whether contrastive scores of chosen responses are read."""
    rule = select.of if isinstance(select, ShuffledWeights) else select
    return isinstance(rule, Contrast) and not rule.only_neg


def _check_padded(recipe: Recipe, rows: Sequence[tuple[Rollout, ...]]) -> None:
    """Refuse a loss over a padded length that a pair does not fit."""
    if not isinstance(recipe.objective, Dpo) or recipe.objective.padded_length is None:
        return
    longest = max(len(rollout.prompt_ids) + len(rollout.response_ids) for row in rows for rollout in row)
    if longest > recipe.objective.padded_length:
        raise UserError(
            f"objective.padded_length is {recipe.objective.padded_length}, and the longest pair has {longest} tokens; raise it, "
            "or leave long pairs out (`max_tokens` of a stage of kind pairs)"
        )


def ask(suite: Suite, recipe: Recipe, policy: Description, grader: Grader, say: Say) -> Asked:
    """A suite made ready for this model: its own task, or the recipe's on the held-out split."""
    task = suite.task or _held_out(recipe.task, suite)
    return prepare(suite, task, suite.prompt or recipe.prompt, policy, grader, say)


def prepare(
    suite: Suite, task: TaskSettings, prompt: PromptSettings, policy: Policy | Description, grader: Grader, say: Say
) -> Asked:
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


def check_directory(directory: Path, recipe: Recipe) -> None:
    """Refuse a directory that holds something else, or a run of another recipe."""
    if not directory.exists() or not any(directory.iterdir()):
        return
    written = directory / RECIPE
    if not written.exists():
        raise UserError(f"{directory} exists and is no run; choose another `name` or `out`")
    changed = [key for key in changed_keys(read_yaml(written), as_mapping(recipe)) if key.partition(".")[0] not in MAY_CHANGE]
    if changed:
        raise UserError(f"{directory} holds a run of another recipe (other: {', '.join(changed)}); choose another `name`")


def _resume(directory: Path, steps: int, learner: Learner, say: Say) -> int:
    """The step that the run in `directory` goes on from, with the learner as it was then; 0 where there is no run."""
    found = checkpoint.newest(directory, say)
    if found is None:
        return 0
    step, where = found
    if step > steps:
        raise UserError(f"{directory} has {step} steps already, more than the {steps} asked for; choose another `name`")
    learner.restore(where)
    say(f"going on from {where}")
    return step
