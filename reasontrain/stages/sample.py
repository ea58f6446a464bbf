"""Sample solutions from the run's initial model, or read them from a file, and grade them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import chain
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from reasontrain import models
from reasontrain.data import thought_marks
from reasontrain.data.files import Row, cell, present, read_file
from reasontrain.data.offline import PROMPTS, fingerprint
from reasontrain.data.prompts import Encoder
from reasontrain.recipe import Recipe, SampleStage, TrajectoriesStage
from reasontrain.run.datasets import encoder_of, response_of
from reasontrain.sampler import Sampler
from reasontrain.sampler.factory import EngineSampler, make_sampler
from reasontrain.stages.solutions import ROLLOUTS, Solution, read, write
from reasontrain.tasks import Grader, GradeRequest
from reasontrain.types import Message, Problem, Prompt, Rollout, UserError

logger = logging.getLogger(__name__)

AT_ONCE = 64
"""Problems per part; at most one part is lost when the stage is killed."""
RESPONSES = ("response", "completion")


def sample(stage: SampleStage, recipe: Recipe, directory: Path) -> None:
    """Sample and grade, and write `rollouts.jsonl`; parts of an interrupted stage are kept."""
    problems = list(stage.task.problems())
    described = models.describe(recipe.model)
    prompt_settings = (
        replace(recipe.prompt, max_tokens=None) if stage.preamble else recipe.prompt
    )  # the limit is for training prompts
    encoder = encoder_of(described, prompt_settings)
    prompts, dropped = encoder.prompts(
        [_with_preamble(problem, stage.preamble) for problem in problems]
    )
    if dropped:
        logger.warning(
            f"{stage.name}: {dropped} of {len(problems)} prompts are too long and were dropped"
        )
    by_id = {problem.id: problem for problem in problems}
    parts = directory / "parts"
    parts.mkdir(exist_ok=True)
    with Grader() as grader, ExitStack() as exit_stack:
        stage.task.check_gradable(problems, grader, required=True)
        sampler: Sampler | None = None
        for start in range(0, len(prompts), AT_ONCE):
            path = parts / f"{start:08d}.jsonl"
            if not path.exists():
                if sampler is None:
                    sampler = exit_stack.enter_context(closing(_sampler(stage, recipe)))
                rollouts = _ask(sampler, prompts[start : start + AT_ONCE], stage, start)
                own = [replace(r, problem=by_id[r.problem.id]) for r in rollouts]
                write(path, _graded(own, stage, encoder, grader))
                logger.info(
                    f"{stage.name}: {min(start + AT_ONCE, len(prompts))} of {len(prompts)} problems"
                )
    files = [parts / f"{start:08d}.jsonl" for start in range(0, len(prompts), AT_ONCE)]
    write(directory / ROLLOUTS, chain.from_iterable(map(read, files)))


def _with_preamble(problem: Problem, preamble: str) -> Problem:
    if not preamble:
        return problem
    if not isinstance(problem.prompt, str):
        raise UserError(
            f"{problem.label} is a conversation, and a stage's `preamble` is put "
            f"before texts; leave it out"
        )
    return replace(problem, prompt=preamble + problem.prompt)


def _sampler(stage: SampleStage, recipe: Recipe) -> EngineSampler:
    """Create a sampler of the model without adapters, in this process."""
    plain = replace(recipe.model, lora=None, gradient_checkpointing=False)
    return make_sampler(stage.sample.engine, plain, seed=recipe.seed)


def _ask(
    sampler: Sampler, prompts: Sequence[Prompt], stage: SampleStage, start: int
) -> list[Rollout]:
    """Sample rollouts with ids that do not depend on the size of parts."""
    size = stage.sample.group_size
    return sampler.sample(prompts, stage.sample, num=size, first_id=start * size)


def _graded(
    rollouts: Sequence[Rollout],
    stage: SampleStage,
    encoder: Encoder,
    grader: Grader,
) -> list[Solution]:
    """Grade rollouts; a response ends before its stop text."""
    closed = [
        _closed(rollout, stage.sample.stop, encoder.tokenizer, encoder.end_id)
        for rollout in rollouts
    ]
    own = fingerprint(encoder.tokenizer)
    scores = stage.task.grade(
        [response_of(rollout) for rollout in closed],
        grader,
        answer_format=stage.task.answer_format,
    )
    return [
        Solution(
            problem=rollout.problem.id,
            prompt=_plain(rollout.problem),
            answer=rollout.problem.answer,
            response=rollout.text,
            extracted=scored.verdict.extracted,
            correct=scored.verdict.correct,
            truncated=rollout.truncated,
            response_ids=rollout.response_ids,
            tokenizer=own,
            tools=rollout.problem.tools,
            chat_template_kwargs=rollout.problem.template_kwargs,
        )
        for rollout, scored in zip(closed, scores, strict=True)
    ]


def _closed(
    rollout: Rollout, stops: Sequence[str], tokenizer: PreTrainedTokenizerBase, end_id: int
) -> Rollout:
    """End the response before its first stop text and the white space there, with `end_id`.

    A token with characters of both the response and the stop text is dropped whole. Ids before it
    stay as they were sampled; only one that ends in white space is encoded anew.
    """
    ids = list(rollout.response_ids)
    text = _decoded(tokenizer, ids)
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    if not places:
        return rollout
    before = text[: min(places)]
    # A prefix in text and not only in length: half a character decodes to another one.
    while not before.startswith(_decoded(tokenizer, ids)):
        ids.pop()
    kept = _decoded(tokenizer, ids).rstrip()
    while not kept.startswith(_decoded(tokenizer, ids)):
        ids.pop()
    ids += tokenizer.encode(kept[len(_decoded(tokenizer, ids)) :], add_special_tokens=False)
    # the stop text ended the response, so whether its thought ended does not change
    return replace(rollout, response_ids=(*ids, end_id), text=thought_marks.decode(tokenizer, ids))


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False))


def _plain(problem: Problem) -> str | list[Message]:
    return problem.prompt if isinstance(problem.prompt, str) else [*problem.prompt]


def read_trajectories(stage: TrajectoriesStage, directory: Path) -> None:
    """Grade the solutions in a file, and write `rollouts.jsonl`."""
    table = read_file(Path(stage.path))
    rows = table.rows[: stage.limit]
    places = [table.where(i) for i in range(len(rows))]
    prompts = [_cell(row, PROMPTS, where) for row, where in zip(rows, places, strict=True)]
    answers = [_cell(row, ("answer",), where) for row, where in zip(rows, places, strict=True)]
    responses = [_cell(row, RESPONSES, where) for row, where in zip(rows, places, strict=True)]
    truncated = [row.get("truncated") is True for row in rows]
    with Grader() as grader:
        verdicts = grader.grade_many(
            [
                GradeRequest(answer, response, is_truncated, problem=prompt)
                for answer, response, is_truncated, prompt in zip(
                    answers, responses, truncated, prompts, strict=True
                )
            ],
            answer_format=stage.answer_format,
        )
    write(
        directory / ROLLOUTS,
        [
            Solution(
                problem=str(row.get("problem_id") or prompt),
                prompt=prompt,
                answer=answer,
                response=response,
                extracted=verdict.extracted,
                correct=verdict.correct,
                truncated=is_truncated,
            )
            for row, prompt, answer, response, is_truncated, verdict in zip(
                rows, prompts, answers, responses, truncated, verdicts, strict=True
            )
        ],
    )
    logger.info(
        f"{stage.name}: {sum(verdict.correct for verdict in verdicts)} of {len(rows)} "
        f"solutions are correct"
    )


def _cell(row: Row, names: Sequence[str], where: str) -> str:
    """The text of the first of these columns that has one."""
    for name in names:
        value = cell(row, name)
        if value is not None and value != "":
            return present(value, column=name, where=where)
    raise UserError(
        f"{where}: no text in any of the columns {', '.join(names)} (the row has: {', '.join(row)})"
    )
