"""The data of a run: problems read and checked, prompts encoded, stored evidence joined."""

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
from reasontrain.algo.token_selection import Contrast, Paced, TokenSelection, unshuffled
from reasontrain.data import evidence_columns, stored_evidence
from reasontrain.data.files import BadRows, Source
from reasontrain.data.offline import encode
from reasontrain.data.order import Order
from reasontrain.data.prompts import Encoder, PromptSettings
from reasontrain.data.replies import encode_demonstrations
from reasontrain.evaluation.run import SuiteGrader
from reasontrain.evaluation.suites import data_folder, with_data
from reasontrain.models import Description, Policy
from reasontrain.recipe import Recipe, Suite, UncondTuned
from reasontrain.run.unconditional import COLUMN, with_uncond_logp
from reasontrain.sampler.offline import OfflineSampler
from reasontrain.tasks import OfflineTask, PairTask, Response, Task, grade_episodes
from reasontrain.tasks.grading import Grader
from reasontrain.tasks.problems import GeneratedProblems, check_no_pairs, with_parts
from reasontrain.types import Problem, Prompt, Rollout, UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SuiteProblems:
    """A suite with its problems, before any model is known.

    Attributes:
        suite: the suite's settings.
        prompt: settings that turn problems into prompts.
        problems: the problems, checked for gold answers.
        score: the grader of responses.
        sha256: hash of all problems with their prompts as text, and gold answers.
    """

    suite: Suite
    prompt: PromptSettings
    problems: Sequence[Problem]
    score: SuiteGrader
    sha256: str


@dataclass(frozen=True)
class EncodedSuite:
    """A suite with its prompts encoded for a model.

    Attributes:
        suite: the suite's settings.
        prompts: the prompts that fit the model.
        dropped: the number of prompts that do not.
        score: the grader of responses.
        sha256: see `SuiteProblems`.
    """

    suite: Suite
    prompts: Sequence[Prompt]
    dropped: int
    score: SuiteGrader
    sha256: str


def score_columns(recipe: Recipe) -> None:
    """Read and check the stored evidence of a recipe whose stages are done.

    Raises UserError where the recipe reads none.
    """
    if not recipe.stored_evidence and not from_sources(recipe.required_evidence, "unconditional"):
        read = ", ".join(sorted(recipe.required_evidence)) or "none"
        raise UserError(
            f"{recipe.name} reads no stored evidence (its rule and objective need: "
            f"{read}); there is nothing to score"
        )
    with Grader() as grader:
        described = models.describe(recipe.model)
        demonstrations, _ = training_data(recipe, described, grader)
    assert demonstrations is not None, "the recipe refuses stored evidence beside sampling"
    with_stored_evidence(recipe, described, demonstrations)


def training_data(
    recipe: Recipe, described: Description, grader: Grader
) -> tuple[OfflineSampler | None, Order]:
    """Return the written responses (None if they are sampled) and the order of the prompts."""
    if recipe.sample is None and isinstance(recipe.task, OfflineTask):
        return _offline_data(recipe, recipe.task, described)
    if recipe.sample is None:
        return _demonstration_data(recipe, described, grader)
    prompts = _prompts(recipe, described, grader)
    per_step = recipe.learn.rollouts_per_step // recipe.sample.group_size
    return None, Order(prompts, per_step, recipe.seed, described.tokenizer)


def first_rows(
    recipe: Recipe, described: Description, num: int
) -> tuple[Encoder, list[tuple[Rollout, ...]]]:
    """The rollouts of the first rows of the data, as they will be learned, and their encoder.

    Args:
        recipe: the recipe; one with `sample` has prompts and no responses yet.
        described: the recipe's model.
        num: number of rows.

    Returns:
        The encoder, and the rollouts of each row, several for a pair.

    Raises:
        UserError: a row cannot be read or encoded.
    """
    encoder = encoder_of(described, recipe.prompt, recipe.task.bad_rows)
    if recipe.sample is None and isinstance(recipe.task, OfflineTask):
        return encoder, encode(recipe.task.samples[:num], encoder, described.context)[0]
    problems = recipe.task.problems()[:num]
    if recipe.sample is None:
        if isinstance(recipe.task, Source):
            check_no_pairs(recipe.task, problems)
        return encoder, [(rollout,) for rollout in encode_demonstrations(encoder, problems)[0]]
    return encoder, [
        (Rollout(problem=prompt.problem, id=i, group=i, prompt_ids=prompt.ids, response_ids=()),)
        for i, prompt in enumerate(encoder.prompts(problems)[0])
    ]


def with_stored_evidence(
    recipe: Recipe, described: Description, demonstrations: OfflineSampler
) -> OfflineSampler:
    """The demonstrations with the log-probs of the unconditional reference, if they are needed."""
    if not from_sources(recipe.required_evidence, "unconditional"):
        return demonstrations
    encoder = encoder_of(described, recipe.prompt)
    joined = with_uncond_logp(
        recipe.unconditional or UncondTuned(),
        encoder,
        [rollout for row in demonstrations.written.values() for rollout in row],
        Path(recipe.stored_evidence[COLUMN]),  # the stage `uncond_logp` is done before every run
    )
    return OfflineSampler({rollout.problem.id: (rollout,) for rollout in joined})


def encoder_of(
    model: Policy | Description, prompt: PromptSettings, bad_rows: BadRows = "refuse"
) -> Encoder:
    """Return the encoder of problems for this model."""
    return Encoder(
        model.tokenizer,
        prompt,
        model.context,
        model.vision,
        stop_ids=model.stop_ids,
        bad_rows=bad_rows,
    )


def make_reward_fn(recipe: Recipe, grader: Grader) -> Callable[[Sequence[Rollout]], list[Rollout]]:
    """Return a function that adds rewards to rollouts; demonstrations have none."""
    if recipe.sample is None:
        return list
    max_tokens = recipe.sample.max_tokens
    environment = recipe.sample.environment

    def add_rewards(rollouts: Sequence[Rollout]) -> list[Rollout]:
        scored = grade_episodes(
            recipe.task,
            [response_of(rollout) for rollout in rollouts],
            grader,
            environment,
            recipe.reward,
            answer_format=recipe.task.answer_format,
        )
        rewarded = recipe.reward_combination(
            [
                replace(
                    rollout,
                    reward=s.reward,
                    correct=s.verdict.correct,
                    reward_parts=s.metrics,
                    reward_failure=s.failure,
                )
                for rollout, s in zip(rollouts, scored, strict=True)
            ]
        )
        return rewarded if recipe.overlong is None else recipe.overlong(rewarded, max_tokens)

    return add_rewards


def response_of(rollout: Rollout) -> Response:
    """The response of a rollout, to be graded."""
    return Response(
        problem=rollout.problem,
        text=rollout.text,
        truncated=rollout.truncated,
        unfinished=rollout.unfinished,
        answer_start=rollout.answer_start,
        episode=rollout.episode,
    )


def _prompts(recipe: Recipe, policy: Description, grader: Grader) -> Sequence[Prompt]:
    """Read the training problems, check that they can be graded, and encode their prompts.

    Generated problems, which are right by construction, are generated and encoded step by step if
    that changes nothing: `prompt.too_long: drop` needs all lengths in advance.
    """
    problems: Sequence[Problem] = recipe.task.problems()
    if isinstance(problems, GeneratedProblems) and recipe.prompt.too_long == "refuse":
        return encoder_of(policy, recipe.prompt).lazy_prompts(problems)
    problems = _checked(recipe, problems, grader)
    prompts, dropped = encoder_of(policy, recipe.prompt, recipe.task.bad_rows).prompts(problems)
    if dropped:
        logger.warning(f"{dropped} of {len(problems)} prompts cannot be used and were dropped")
    return prompts


def _checked(recipe: Recipe, problems: Sequence[Problem], grader: Grader) -> Sequence[Problem]:
    """The problems that have the parts that the recipe needs, checked for gold answers."""
    if recipe.sample is None and isinstance(recipe.task, Source):
        check_no_pairs(recipe.task, problems)
    graded = not isinstance(recipe.advantage, NoAdvantage) or isinstance(
        unshuffled(recipe.token_selection), Paced
    )
    by_environment = recipe.sample is not None and recipe.sample.has_environment_reward
    has_own_reward = recipe.task.has_own_reward or by_environment
    problems = with_parts(
        problems,
        bad_rows=recipe.task.bad_rows,
        answer=graded and not has_own_reward,
        solution=recipe.sample is None,
    )
    recipe.task.check_gradable(problems, grader, required=graded and not by_environment)
    return problems


def _demonstration_data(
    recipe: Recipe, described: Description, grader: Grader
) -> tuple[OfflineSampler, Order]:
    """Read the problems' written replies, and order them."""
    problems = _checked(recipe, recipe.task.problems(), grader)
    encoder = encoder_of(described, recipe.prompt, recipe.task.bad_rows)
    written, dropped = encode_demonstrations(encoder, problems)
    if dropped:
        logger.warning(
            f"{dropped} of {len(written) + dropped} demonstrations are too long and were dropped"
        )
    by_id = {rollout.problem.id: (rollout,) for rollout in written}
    prompts = [Prompt(problem=rollout.problem, ids=rollout.prompt_ids) for rollout in written]
    return OfflineSampler(by_id), Order(
        prompts, recipe.learn.rollouts_per_step, recipe.seed, described.tokenizer
    )


def _offline_data(
    recipe: Recipe, task: OfflineTask, described: Description
) -> tuple[OfflineSampler, Order]:
    """Read a file's responses, join the evidence stored for them, and order them."""
    encoder = encoder_of(described, recipe.prompt, task.bad_rows)
    rows, dropped = encode(task.samples, encoder, described.context)
    if dropped:
        logger.warning(
            f"{dropped} of {len(task.samples)} samples ({task.kind}) are too long and were dropped"
        )
    for name, path in sorted(recipe.stored_evidence.items()):
        if name == COLUMN:
            continue  # found by other ids, in `with_stored_evidence`
        # a rule that scores only rejected responses needs no scores of chosen ones, which come
        # first in a pair
        num_optional = int(
            isinstance(task, PairTask)
            and name == "ce_logscore"
            and not _reads_chosen(recipe.token_selection)
        )
        named = evidence_columns.column_of(path)
        column: stored_evidence.StoredColumn | evidence_columns.EvidenceColumn
        if named is None:
            column = stored_evidence.read(Path(path), name, _made_by(recipe, name))
        else:
            # Lines that are no rows were reported, or refused, when the samples were read.
            table = task.table(lambda error: None)
            column = evidence_columns.read(table, name, named, described.tokenizer)
        rows = [column.joined(row, optional=num_optional) for row in rows]
    _check_padded(recipe, rows)
    prompts = [Prompt(problem=row[0].problem, ids=row[0].prompt_ids) for row in rows]
    per_step = recipe.learn.rollouts_per_step // len(rows[0])
    sampler = OfflineSampler({row[0].problem.id: row for row in rows})
    return sampler, Order(prompts, per_step, recipe.seed, described.tokenizer)


def _made_by(recipe: Recipe, name: str) -> stored_evidence.MadeBy | None:
    """The model that must have made a stored column; None if any may have."""
    return (
        {"model": models.fingerprint(recipe.reference or recipe.model)}
        if name == "ref_logp"
        else None
    )


def _reads_chosen(token_selection: TokenSelection) -> bool:
    """Return True if the rule reads contrastive scores of chosen responses."""
    rule = unshuffled(token_selection)
    return isinstance(rule, Contrast) and not rule.only_neg


def _check_padded(recipe: Recipe, rows: Sequence[tuple[Rollout, ...]]) -> None:
    """Refuse a padded length that is shorter than a pair."""
    if not isinstance(recipe.objective, Dpo) or recipe.objective.padded_length is None:
        return
    longest = max(
        len(rollout.prompt_ids) + len(rollout.response_ids) for row in rows for rollout in row
    )
    if longest > recipe.objective.padded_length:
        raise UserError(
            f"objective.padded_length is {recipe.objective.padded_length}, but the longest pair "
            f"has {longest} tokens; raise it, or drop long pairs (`max_tokens` of a stage of kind "
            "pairs)"
        )


def encode_suite(suite: Suite, recipe: Recipe, policy: Description, grader: Grader) -> EncodedSuite:
    """Encode a suite of a recipe for a model.

    Args:
        suite: the suite; without a `task`, it uses the held-out split of the recipe's. With a
            `file`, its problems come from `$REASONTRAIN_DATA`, if that is set.
        recipe: the recipe, whose `prompt` applies if the suite has none.
        policy: the model that will be evaluated.
        grader: the common verifier.

    Returns:
        The suite with the prompts that fit the model.

    Raises:
        UserError: the problems cannot be read or graded, or the task has no held-out split.
    """
    if suite.file is not None:
        suite = with_data(suite, data_folder())
    task = suite.task or recipe.task.held_out()
    if task is None:
        raise UserError(
            f"evaluate: suite {suite.name} has no `task`, and {recipe.task.kind} has no held-out "
            "split to use instead"
        )
    problems = load_suite(suite, task, suite.prompt or recipe.prompt, grader)
    return encode_prompts(problems, policy)


def load_suite(suite: Suite, task: Task, prompt: PromptSettings, grader: Grader) -> SuiteProblems:
    """Read the problems of a suite, and check that responses to them can be graded.

    Args:
        suite: the suite's settings.
        task: the source of problems, which also grades responses.
        prompt: settings that turn problems into prompts.
        grader: the common verifier.

    Returns:
        The suite's problems, the same for every model.

    Raises:
        UserError: the problems cannot be read or graded.
    """
    problems = with_parts(
        task.problems()[: suite.limit],
        bad_rows=task.bad_rows,
        answer=not (task.has_own_reward or suite.sampling.has_environment_reward),
        solution=False,
    )
    task.check_gradable(problems, grader, required=not suite.sampling.has_environment_reward)
    content = json.dumps(
        [
            [problem.id, prompt.prompt_of(problem), problem.answer, *_variables(problem)]
            for problem in problems
        ]
    )
    digest = hashlib.sha256(content.encode()).hexdigest()

    score = SuiteGrader(
        task=task,
        grader=grader,
        answer_format=suite.answer_format or task.answer_format,
        environment=suite.sampling.environment,
    )
    return SuiteProblems(suite, prompt, problems, score, digest)


def _variables(problem: Problem) -> list[object]:
    """The variables of the chat template besides turns; empty for most problems."""
    if not problem.tools and not problem.template_kwargs:
        return []
    return [problem.tools, dict(problem.template_kwargs)]


def encode_prompts(suite_problems: SuiteProblems, policy: Policy | Description) -> EncodedSuite:
    """Encode a suite's prompts for a model; those that do not fit are counted and dropped."""
    suite = suite_problems.suite
    problems = suite_problems.problems
    encoder = encoder_of(policy, replace(suite_problems.prompt, too_long="drop"))
    prompts, dropped = encoder.prompts(problems)
    if dropped:
        logger.warning(
            f"suite {suite.name}: {dropped} of {len(problems)} prompts do not fit the "
            f"model and count as wrong"
        )
    return EncodedSuite(suite, prompts, dropped, suite_problems.score, suite_problems.sha256)
