"""What a recipe learns from and is asked: problems read and checked, prompts encoded, stored
evidence joined.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reasontrain import models
from reasontrain.algo.advantages import NoAdvantage
from reasontrain.algo.evidence import from_sources
from reasontrain.algo.objectives import Dpo
from reasontrain.algo.token_selection import Contrast, ShuffledWeights, TokenSelection
from reasontrain.data import stored_evidence
from reasontrain.data.offline import encode
from reasontrain.data.order import Order
from reasontrain.data.prompts import Encoder, PromptSettings
from reasontrain.evaluation.run import Score
from reasontrain.learner.unconditional import with_uncond_logp
from reasontrain.models import Description, Policy
from reasontrain.recipe import Recipe, Suite
from reasontrain.sampler.offline import OfflineSampler
from reasontrain.tasks import OfflineTask, PairTask, Scored, TaskSettings, check_gold, score
from reasontrain.tasks.arithmetic import Arithmetic
from reasontrain.tasks.grading import Grader
from reasontrain.tasks.images import ImageTask
from reasontrain.tasks.problems import GeneratedProblems
from reasontrain.tasks.python import PythonTask
from reasontrain.types import Problem, Prompt, Rollout, UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncodedTask:
    """A suite's problems, their gold answers checked, and what grades responses; `sha256` is of all
    problems as they are put.
    """

    suite: Suite
    prompt: PromptSettings
    problems: Sequence[Problem]
    score: Score
    sha256: str


@dataclass(frozen=True)
class EncodedSuite:
    """A suite with its prompts encoded for the model, and how many did not fit; `sha256` is of all
    problems as they are put.
    """

    suite: Suite
    prompts: Sequence[Prompt]
    dropped: int
    score: Score
    sha256: str


def score_columns(recipe: Recipe) -> None:
    """Compute and store the evidence that the recipe's rule reads from a store; raises UserError
    where it reads none.
    """
    if not recipe.evidence and not from_sources(recipe.required_evidence, "unconditional"):
        read = ", ".join(sorted(recipe.required_evidence)) or "none"
        raise UserError(
            f"{recipe.name} reads no stored evidence (its rule and objective need: "
            f"{read}); there is nothing to score"
        )
    with Grader() as grader:
        described = models.describe(recipe.model)
        written, _ = source(recipe, described, grader)
    assert written is not None, "the recipe refuses stored evidence beside sampling"
    with_stored(recipe, described, written)


def source(
    recipe: Recipe, described: Description, grader: Grader
) -> tuple[OfflineSampler | None, Order]:
    """What is learned from, where it is written already, and the order in which it is taken or
    asked for.
    """
    if recipe.sample is None and isinstance(recipe.task, OfflineTask):
        return _written(recipe, recipe.task, described)
    return _order(recipe, described, _prompts(recipe, described, grader))


def with_stored(recipe: Recipe, described: Description, written: OfflineSampler) -> OfflineSampler:
    """The demonstrations with the stored evidence that the recipe needs, computed first where it is
    not there.
    """
    if not from_sources(recipe.required_evidence, "unconditional"):
        return written
    encoder = encoder_of(described, recipe.prompt)
    found = with_uncond_logp(
        recipe, encoder, [rollout for row in written.written.values() for rollout in row]
    )
    return OfflineSampler({rollout.problem.id: (rollout,) for rollout in found})


def encoder_of(model: Policy | Description, prompt: PromptSettings) -> Encoder:
    """What encodes problems for this model."""
    return Encoder(model.tokenizer, prompt, model.context, model.vision)


def rewarded(recipe: Recipe, grader: Grader) -> Callable[[Sequence[Rollout]], list[Rollout]]:
    """What gives rollouts their rewards; demonstrations have none."""
    if recipe.sample is None:
        return list

    def graded(rollouts: Sequence[Rollout]) -> list[Rollout]:
        scored = score(
            recipe.task,
            [(rollout.problem, rollout.text) for rollout in rollouts],
            grader,
            recipe.reward,
        )
        return [
            replace(rollout, reward=s.reward) for rollout, s in zip(rollouts, scored, strict=True)
        ]

    return graded


def _prompts(recipe: Recipe, policy: Description, grader: Grader) -> Sequence[Prompt]:
    """The training prompts, their gold answers checked.

    Generated problems, which are right by construction, are made and encoded as steps ask for
    them, where that changes nothing: demonstrations and `prompt.too_long: drop` need the length of each before the first step.
    """
    problems = recipe.task.problems()
    if (
        isinstance(problems, GeneratedProblems)
        and recipe.sample is not None
        and recipe.prompt.too_long == "refuse"
    ):
        return encoder_of(policy, recipe.prompt).lazy_prompts(problems)
    if not isinstance(recipe.task, PythonTask | ImageTask):
        check_gold(problems, grader, required=not isinstance(recipe.advantage, NoAdvantage))
    elif recipe.sample and isinstance(recipe.task, PythonTask):
        recipe.task.load()
    prompts, dropped = encoder_of(policy, recipe.prompt).prompts(problems)
    if dropped:
        logger.warning(f"{dropped} of {len(problems)} prompts are too long and were dropped")
    return prompts


def _order(
    recipe: Recipe, described: Description, prompts: Sequence[Prompt]
) -> tuple[OfflineSampler | None, Order]:
    """Demonstrations where they are learned from, and the order in which prompts are asked."""
    if recipe.sample:
        per_step = recipe.learn.rollouts_per_step // recipe.sample.group_size
        return None, Order(prompts, per_step, recipe.seed, described.tokenizer)
    encoder = encoder_of(described, recipe.prompt)
    written, dropped = encoder.demonstrations(prompts, described.context)
    if dropped:
        logger.warning(f"{dropped} of {len(prompts)} demonstrations are too long and were dropped")
    by_id = {rollout.problem.id: (rollout,) for rollout in written}
    asked = [prompt for prompt in prompts if prompt.problem.id in by_id]
    return OfflineSampler(by_id), Order(
        asked, recipe.learn.rollouts_per_step, recipe.seed, described.tokenizer
    )


def _written(
    recipe: Recipe, task: OfflineTask, described: Description
) -> tuple[OfflineSampler, Order]:
    """What a file holds to learn from, with the evidence that was stored for it, and the order of
    its rows.
    """
    encoder = encoder_of(described, recipe.prompt)
    rows, dropped = encode(task.rows, encoder, described.context)
    if dropped:
        logger.warning(
            f"{dropped} of {len(task.rows)} rows of {task.kind} are too long and were dropped"
        )
    for name, path in sorted(recipe.evidence.items()):
        chosen_may_lack = int(
            isinstance(task, PairTask)
            and name == "ce_logscore"
            and not _reads_chosen(recipe.token_selection)
        )
        column = stored_evidence.read(Path(path), name, _made_by(recipe, name))
        rows = [column.joined(row, optional=chosen_may_lack) for row in rows]
    _check_padded(recipe, rows)
    asked = [Prompt(problem=row[0].problem, ids=row[0].prompt_ids) for row in rows]
    per_step = recipe.learn.rollouts_per_step // len(rows[0])
    sampler = OfflineSampler({row[0].problem.id: row for row in rows})
    return sampler, Order(asked, per_step, recipe.seed, described.tokenizer)


def _made_by(recipe: Recipe, name: str) -> stored_evidence.MadeBy | None:
    """What should have made a stored column, where the recipe says which model's numbers it is to
    hold.
    """
    return (
        {"model": models.fingerprint(recipe.reference or recipe.model)}
        if name == "ref_logp"
        else None
    )


def _reads_chosen(token_selection: TokenSelection) -> bool:
    """Whether contrastive scores of chosen responses are read."""
    rule = token_selection.of if isinstance(token_selection, ShuffledWeights) else token_selection
    return isinstance(rule, Contrast) and not rule.only_neg


def _check_padded(recipe: Recipe, rows: Sequence[tuple[Rollout, ...]]) -> None:
    """Refuse a loss over a padded length that a pair does not fit."""
    if not isinstance(recipe.objective, Dpo) or recipe.objective.padded_length is None:
        return
    longest = max(
        len(rollout.prompt_ids) + len(rollout.response_ids) for row in rows for rollout in row
    )
    if longest > recipe.objective.padded_length:
        raise UserError(
            f"objective.padded_length is {recipe.objective.padded_length}, and the longest "
            f"pair has {longest} tokens; raise it, "
            "or leave long pairs out (`max_tokens` of a stage of kind pairs)"
        )


def encode_suite(suite: Suite, recipe: Recipe, policy: Description, grader: Grader) -> EncodedSuite:
    """A suite made ready for this model: its own task, or the recipe's on the held-out split."""
    task = suite.task or _held_out(recipe.task, suite)
    return encoded(encode_task(suite, task, suite.prompt or recipe.prompt, grader), policy)


def encode_task(
    suite: Suite, task: TaskSettings, prompt: PromptSettings, grader: Grader
) -> EncodedTask:
    """The suite's problems as they are put to anybody."""
    problems = task.problems()[: suite.limit]
    if isinstance(task, PythonTask):
        task.load()
    elif not isinstance(task, ImageTask):
        check_gold(problems, grader, required=True)
    said = json.dumps(
        [[problem.id, prompt.around(problem), problem.answer] for problem in problems]
    )
    digest = hashlib.sha256(said.encode()).hexdigest()

    def graded(answers: Sequence[tuple[Problem, str]]) -> list[Scored]:
        return score(task, answers, grader, last_number=suite.last_number)

    return EncodedTask(suite, prompt, problems, graded, digest)


def encoded(posed: EncodedTask, policy: Policy | Description) -> EncodedSuite:
    """The suite's prompts in this model's token ids; those that are too long are counted, and count
    as wrong.
    """
    suite, problems = posed.suite, posed.problems
    prompts, dropped = encoder_of(policy, replace(posed.prompt, too_long="drop")).prompts(problems)
    if dropped:
        logger.warning(
            f"suite {suite.name}: {dropped} of {len(problems)} prompts do not fit the "
            f"model and count as wrong"
        )
    return EncodedSuite(suite, prompts, dropped, posed.score, posed.sha256)


def _held_out(task: TaskSettings, suite: Suite) -> TaskSettings:
    """The split of the recipe's task that is never trained on."""
    if isinstance(task, ImageTask):
        return replace(task, split="test")
    if not isinstance(task, Arithmetic):
        raise UserError(
            f"evaluate: suite {suite.name} names no `task`, and {task.kind} has no "
            f"held-out split of its own"
        )
    return replace(task, split="test", wrong_steps=0.0)
